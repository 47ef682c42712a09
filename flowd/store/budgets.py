"""What the language models of an execution have cost, and what they may cost at most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flowd.store.redis import keys, scripts
from flowd.store.redis.client import RedisClient
from flowd.store.redis.text import count_of

_FIELDS = ("calls", "prompt", "completion", "total", "spent", "reserved")


class TokenUsage(NamedTuple):
    """Tokens, but for `calls`. `spent` and `reserved` count against a budget."""

    calls: int = 0
    prompt: int = 0
    completion: int = 0
    total: int = 0
    spent: int = 0
    reserved: int = 0


class Payer(NamedTuple):
    """The execution of a tree whose budget its children spend, and how many tokens that is."""

    execution_id: str
    tokens: int


def parse_payer(text: str | None) -> Payer | None:
    """None where there is none, or what flowd did not write."""
    execution_id, _, tokens = (text or "").partition(" ")
    return Payer(execution_id, count_of(tokens)) if count_of(tokens) else None


class Reservation(NamedTuple):
    outcome: str
    spent: int
    reserved: int


class Holds(NamedTuple):
    """Tokens that are spent and set aside, and the nodes whose calls set some aside."""

    spent: int
    held: int
    holders: frozenset[str]


class Budgets:
    """Raises StoreUnavailable while Redis does not answer; every call may be repeated."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def reserve(
        self,
        execution_id: str,
        node_id: str,
        attempt: int,
        *,
        tokens: int,
        budget: int,
        payer_id: str = "",
    ) -> Reservation:
        """Set tokens aside for one call; see reserve_tokens.lua for the outcomes."""
        found = await self._client.run(
            scripts.RESERVE_TOKENS,
            (keys.run(execution_id), keys.run(payer_id or execution_id)),
            node_id,
            attempt,
            tokens,
            budget,
            payer_id,
        )
        return Reservation(*found)

    async def settle(
        self,
        execution_id: str,
        node_id: str,
        attempt: int,
        spent: int | None,
        usage: TokenUsage,
        payer_id: str = "",
    ) -> None:
        """Say what the call has cost; None for `spent` counts all that was set aside."""
        await self._client.run(
            scripts.SETTLE_TOKENS,
            (keys.run(execution_id), keys.run(payer_id or execution_id)),
            node_id,
            attempt,
            "" if spent is None else spent,
            usage.prompt,
            usage.completion,
            usage.total,
        )

    async def holds(self, execution_id: str, node_ids: Sequence[str]) -> Holds:
        """What calls hold of a budget, and which of these nodes do."""
        spent, held, *own = await self._client.execute(
            "HMGET",
            keys.run(execution_id),
            "tokens:spent",
            "tokens:reserved",
            *(f"tokens:reserved:{node_id}" for node_id in node_ids),
        )
        holders = (one for one, field in zip(node_ids, own, strict=True) if field is not None)
        return Holds(int(spent or 0), int(held or 0), frozenset(holders))

    async def usage(self, execution_id: str) -> TokenUsage:
        found = await self._client.execute(
            "HMGET", keys.run(execution_id), *(f"tokens:{name}" for name in _FIELDS)
        )
        return TokenUsage(*(int(one or 0) for one in found))
