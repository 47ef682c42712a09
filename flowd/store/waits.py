"""Nodes that wait for something outside of any worker: what would wake them, what was decided.

A node is WAITING exactly while it has a record here. A decision is made once for each wait of a
node, and may come before the wait: the node then finds it when it begins to wait.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from flowd.errors import CorruptExecution, UnknownExecution, WrongType
from flowd.store.executions import NODES_PER_CALL_MAX, slices
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import RedisClient


class WaitRecord(NamedTuple):
    """The wait of a node: its number from 1, what wakes it, since when, until when at most.

    Times are by the clock that never goes back, but a `moment` is due by the server's. `text` is
    for whoever looks.
    """

    number: int
    waker: str
    since_ms: int
    due_ms: int | None
    text: str = ""


class Decision(NamedTuple):
    """What ended the wait of this number: the kind of what came, when (Unix ms), what with it."""

    number: int
    kind: str
    at_ms: int
    payload: str = ""


class Wake(NamedTuple):
    """The outcome word of wake_node.lua, and the decision that stands; None where there is none."""

    outcome: str
    decision: Decision | None


def parse_wait(text: str | None) -> WaitRecord | None:
    """None for what flowd did not write."""
    parts = (text or "").split(" ", 4)
    if len(parts) < 5 or not (parts[0].isdecimal() and parts[2].isdecimal()):
        return None
    due_ms = int(parts[3]) if parts[3].isdecimal() else None
    return WaitRecord(int(parts[0]), parts[1], int(parts[2]), due_ms, parts[4])


def parse_decision(text: str | None) -> Decision | None:
    """None for what flowd did not write."""
    parts = (text or "").split(" ", 3)
    if len(parts) < 4 or not (parts[0].isdecimal() and parts[2].isdecimal()):
        return None
    return Decision(int(parts[0]), parts[1], int(parts[2]), parts[3])


class Waits:
    """Raises StoreUnavailable while Redis does not answer; every call may be repeated."""

    def __init__(self, client: RedisClient, stream: str) -> None:
        self._client = client
        self._stream = stream

    async def wake(self, execution_id: str, node_id: str, kind: str, payload: str = "") -> Wake:
        """Say that what a node waits for, or will, has come; see shared/wake_nodes.lua.

        Raises UnknownExecution, also for a node it has not, and CorruptExecution.
        """
        outcome, decision = await self._client.run(
            scripts.WAKE_NODE, (self._stream,), execution_id, node_id, kind, payload
        )
        if outcome == "unknown":
            raise UnknownExecution(execution_id)
        if outcome == "corrupt":
            raise CorruptExecution(execution_id, "the key of its decisions was damaged")
        return Wake(outcome, parse_decision(decision))

    async def records(
        self, execution_id: str, node_ids: Sequence[str]
    ) -> dict[str, WaitRecord | None]:
        """Of nodes that are WAITING. Raises CorruptExecution."""
        texts = await self._fields(execution_id, keys.waits(execution_id), node_ids)
        return {one: parse_wait(text) for one, text in texts.items()}

    async def decisions(
        self, execution_id: str, node_ids: Sequence[str]
    ) -> dict[str, Decision | None]:
        """The newest of each node, whether it still waits or not. Raises CorruptExecution."""
        texts = await self._fields(execution_id, keys.decisions(execution_id), node_ids)
        return {one: parse_decision(text) for one, text in texts.items()}

    async def _fields(
        self, execution_id: str, key: str, node_ids: Sequence[str]
    ) -> dict[str, str | None]:
        found: dict[str, str | None] = {}
        try:
            for some in slices(node_ids, NODES_PER_CALL_MAX):
                texts = await self._client.execute("HMGET", key, *some)
                found.update(zip(some, texts, strict=True))
        except WrongType as error:
            reason = f"{key!r} is of another type than flowd keeps there"
            raise CorruptExecution(execution_id, reason) from error
        return found
