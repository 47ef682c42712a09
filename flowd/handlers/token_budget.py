"""One call of a language model against its execution's budget: reserved before, settled after."""

from __future__ import annotations

import asyncio
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
    NotYet,
    StoreFull,
    StoreReadOnly,
    StoreUnavailable,
)
from flowd.handlers.context import HandlerContext
from flowd.store.budgets import Usage

_T = TypeVar("_T")

# A token is at least one byte; what a server puts around a message is a handful of tokens.
TOKENS_PER_MESSAGE: Final = 16
# The longest answer of a node that does not say what it wants, where there is a budget.
ANSWER_TOKENS: Final = 1024
# Other calls have to end first: they take seconds.
OCCUPIED_AFTER_S: Final = 0.5


class Cost:
    """What came out of a call; `usage` stays None when nobody said."""

    def __init__(self) -> None:
        self.usage: Usage | None = None

    def note(self, written: Any) -> None:
        """The `usage` object of an answer."""
        if isinstance(written, dict):
            prompt, completion = (_count(written, f"{name}_tokens") for name in _PARTS)
            total = _count(written, "total_tokens") or prompt + completion
            self.usage = Usage(1, prompt, completion, total)


_PARTS = ("prompt", "completion")


def _count(written: dict[str, Any], name: str) -> int:
    value = written.get(name)
    is_count = isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 10**12
    return value if is_count and value else 0


@asynccontextmanager
async def within_budget(context: HandlerContext, request: dict[str, Any]) -> AsyncIterator[Cost]:
    """Around the call. `request` gets the `max_tokens` that fit when it says nothing of its own.

    Raises NotYet while other calls hold what this one needs, and Fail when the budget is spent.
    """
    cost = Cost()
    budgets, budget = context.resources.budgets, context.budget_tokens
    if budgets is None:
        yield cost
        return
    place = (context.execution_id, context.node_id, context.attempt)
    if budget is not None:
        tokens = _bound(request, budget)
        found = await _insist(partial(budgets.reserve, *place, tokens=tokens, budget=budget))
        _refuse(found.outcome, request, budget, found.spent, found.reserved)
    is_free, is_patient = False, True
    try:
        yield cost
    except asyncio.CancelledError:
        is_patient = False
        raise
    except HandlerFailed as error:
        # An error status and a call never made cost nothing. After a time-out nobody knows.
        is_free = "status" in error.kinds or isinstance(error, Fail | NotSent)
        raise
    finally:
        spent = 0 if is_free else cost.usage.total if cost.usage else None
        settle = partial(budgets.settle, *place, spent, cost.usage or Usage(1))
        await (_insist(settle) if is_patient else settle())


async def _insist(call: Callable[[], Awaitable[_T]]) -> _T:
    """An answer that was paid for is kept while Redis is away; the node's time-out ends it."""
    for pause_s in growing_pauses():
        try:
            return await call()
        except (StoreUnavailable, StoreReadOnly, StoreFull):
            await asyncio.sleep(pause_s)
    raise AssertionError("the pauses have no end")


def _bound(request: dict[str, Any], budget: int) -> int:
    """The most this request can cost, in tokens."""
    prompt = len(orjson.dumps(request)) + TOKENS_PER_MESSAGE * len(request["messages"])
    if "max_tokens" not in request:
        request["max_tokens"] = max(1, min(ANSWER_TOKENS, budget - prompt))
    return prompt + int(request["max_tokens"])


def _refuse(outcome: str, request: dict[str, Any], budget: int, spent: int, reserved: int) -> None:
    if outcome == "reserved":
        return
    if outcome == "gone":
        raise Fail("its execution was deleted")
    needed = _bound(request, budget)
    state = f"{spent:,} of {budget:,} tokens are spent, this call may take {needed:,}"
    if outcome == "occupied":
        reason = f"the budget is taken by other calls: {state}, {reserved:,} are set aside"
        raise NotYet(reason, after_s=OCCUPIED_AFTER_S)
    raise Fail(f"the budget is exhausted: {state}")
