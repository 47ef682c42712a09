"""One call of a language model against its execution's budget: reserved before, settled after."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Final, TypeVar

import orjson

from flowd.backoff import growing_pauses
from flowd.errors import (
    Fail,
    HandlerFailed,
    NotSent,
    StoreFull,
    StoreUnavailable,
)
from flowd.handlers.context import HandlerContext
from flowd.store.budgets import Reservation, TokenUsage

_T = TypeVar("_T")

# What a server's template puts around each message, and before all of them.
TOKENS_PER_MESSAGE: Final = 16
TOKENS_PER_REQUEST: Final = 64
# The longest answer of a node that does not say what it wants, where there is a budget.
ANSWER_TOKENS: Final = 1024
# Every tokenizer of a language model has a token for a space with the letter behind it.
_SPACE_AND_LETTER: Final = re.compile(" [A-Za-z]")
_LIMITS: Final = ("max_tokens", "max_completion_tokens")
# By the names of the chat API, and of those that came before and after it.
_PROMPT: Final = ("prompt_tokens", "input_tokens")
_ANSWER: Final = ("completion_tokens", "output_tokens")


class Cost:
    """What came out of a call; `usage` stays None when nobody said, or said what cannot be.

    What was answered was paid for, whatever is made of the answer.
    """

    def __init__(self) -> None:
        self.is_answered = False
        self.usage: TokenUsage | None = None

    def note(self, written: Any) -> None:
        """The `usage` object of an answer."""
        if not isinstance(written, dict):
            return
        prompt, answer = _count(written, *_PROMPT), _count(written, *_ANSWER)
        said = _count(written, "total_tokens")
        # Some count what a model thought only in the sum.
        total = max(said or 0, (prompt or 0) + (answer or 0))
        is_known = said is not None or (prompt is not None and answer is not None)
        if is_known and total > 0:
            self.usage = TokenUsage(1, prompt or 0, answer or 0, total)


def _count(written: dict[str, Any], *names: str) -> int | None:
    for name in names:
        value = written.get(name)
        is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12
        if is_count:
            return value
    return None


@asynccontextmanager
async def within_budget(context: HandlerContext, request: dict[str, Any]) -> AsyncIterator[Cost]:
    """Around the call. `request` gets the `max_tokens` that fit when it says nothing of its own.

    Waits while other calls hold what this one needs, and raises Fail when the budget is spent.
    """
    cost = Cost()
    budgets, budget = context.resources.budgets, context.budget_tokens
    if budgets is None:
        yield cost
        return
    place = (context.execution_id, context.node_id, context.attempt)
    if budget is not None:
        tokens = bound_tokens(request, budget)
        reserve = partial(
            budgets.reserve, *place, tokens=tokens, budget=budget, payer_id=context.payer_id
        )
        await _reserve(
            context, reserve, f"of {budget:,} tokens are spent, this call may take {tokens:,}"
        )
    is_free, is_patient = False, True
    try:
        yield cost
    except asyncio.CancelledError:
        is_patient = False
        raise
    except HandlerFailed as error:
        # An error status and a call never made cost nothing. After a time-out nobody knows.
        is_unpaid = "status" in error.kinds or isinstance(error, Fail | NotSent)
        is_free = is_unpaid and not cost.is_answered
        raise
    finally:
        spent = cost.usage.total if cost.usage else 0 if is_free else None
        usage = cost.usage or TokenUsage(1)
        settle = partial(budgets.settle, *place, spent, usage, context.payer_id)
        await (_insist(settle) if is_patient else settle())


async def _insist(call: Callable[[], Awaitable[_T]]) -> _T:
    """An answer that was paid for is kept while Redis is away; the node's time-out ends it."""
    for pause_s in growing_pauses():
        try:
            return await call()
        except (StoreUnavailable, StoreFull):
            await asyncio.sleep(pause_s)
    raise AssertionError("the pauses have no end")


async def _reserve(
    context: HandlerContext, reserve: Callable[[], Awaitable[Reservation]], state: str
) -> None:
    """Wait for other calls to end. As long as they do, the node's time begins anew."""
    seen: Reservation | None = None
    for pause_s in growing_pauses():
        reservation = await _insist(reserve)
        if reservation.outcome == "reserved":
            return
        if reservation.outcome == "gone":
            raise Fail("its execution was deleted")
        if reservation.outcome != "occupied":
            raise Fail(f"the budget is exhausted: {reservation.spent:,} {state}")
        if seen is not None and seen != reservation:
            context.heartbeat()
        seen = reservation
        await asyncio.sleep(pause_s)


def bound_tokens(request: dict[str, Any], budget: int) -> int:
    """The most this request can cost. It gets a limit for the answer when it has none."""
    prompt = _prompt_bound(request)
    limits = [request[name] for name in _LIMITS if name in request]
    if not limits:
        limits = [max(1, min(ANSWER_TOKENS, budget - prompt))]
        request["max_tokens"] = limits[0]
    return prompt + int(limits[0])


def _prompt_bound(request: dict[str, Any]) -> int:
    """What a model reads are the contents, and what has a structure: schemas and tools."""
    tokens = TOKENS_PER_REQUEST
    for name, value in request.items():
        if name == "messages":
            tokens += sum(TOKENS_PER_MESSAGE + _message_bound(one) for one in value)
        elif isinstance(value, dict | list):
            tokens += len(orjson.dumps(value))
    return tokens


def _message_bound(message: dict[str, Any]) -> int:
    tokens = 0
    for name, value in message.items():
        parts = value if name == "content" and isinstance(value, list) else [value]
        for part in parts:
            is_text = isinstance(part, dict) and part.keys() == {"type", "text"}
            text = part["text"] if is_text else part
            if name != "role" and text is not None:
                written = text if isinstance(text, str) else orjson.dumps(text).decode()
                tokens += _text_bound(written)
    return tokens


def _text_bound(text: str) -> int:
    """A token is at least one byte, and a space before a letter none of its own."""
    return len(text.encode()) - len(_SPACE_AND_LETTER.findall(text))
