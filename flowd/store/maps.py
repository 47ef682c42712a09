"""The items of nodes with `map`: staged, opened, gathered, copied, removed.

The list of such a node is stored once. Each item is a node of its own to the workers, `fan.17`,
that no counter of the execution knows: those of the map say when all of them have ended.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any, Final, NamedTuple

import orjson

from flowd.config import Settings
from flowd.errors import CorruptExecution, WrongType
from flowd.store.executions import NODES_PER_CALL_MAX, slices
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Command, RedisClient, is_wrong_type
from flowd.store.redis.text import count_of, raw_bytes, readable
from flowd.workflow.ids import item_id, split_item
from flowd.workflow.states import NodeState

# Of the items that one call stores, or of the outputs it reads; but for one that is larger.
SLICE_BYTES_MAX: Final = 1024 * 1024
_FIELDS: Final = (
    "n", "window", "max_failed", "ended", "failed", "bytes", "bytes_max", "failure", "stopped",
)  # fmt: skip


class MapStanding(NamedTuple):
    """How far the items of a node are; `failure` is the first of them that failed, and why, and
    `stopped` says why no further one starts: `failed` or `bytes`, else it is empty.
    """

    n: int
    window: int
    max_failed: int
    ended: int
    failed: int
    bytes: int
    bytes_max: int
    failure: str = ""
    stopped: str = ""

    @property
    def is_over(self) -> bool:
        return bool(self.stopped) or self.ended >= self.n


class Places(NamedTuple):
    """The items that have a place, by index, with their states, and how many wait for one."""

    open: Mapping[str, NodeState | None]
    waiting: int


class Maps:
    """Every method raises StoreUnavailable while Redis does not answer; each may be repeated."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._stream = settings.tasks.stream

    async def standing(self, execution_id: str, node_id: str) -> MapStanding | None:
        """None while its list is not stored whole. Raises CorruptExecution."""
        (values,) = await self._client.converse_freely([_standing_call(execution_id, node_id)])
        return _standing(execution_id, node_id, values)

    async def stage(self, execution_id: str, node_id: str, items: Sequence[Any]) -> bool:
        """Store the list, slice by slice; False when the node runs no more."""
        for first, texts in _portions(items):
            outcome = await self._client.run(
                scripts.STAGE_ITEMS,
                (
                    keys.status(execution_id),
                    keys.node(execution_id, node_id),
                    keys.map_of(execution_id, node_id),
                    keys.map_items(execution_id, node_id),
                    keys.map_todo(execution_id, node_id),
                ),
                first,
                *texts,
            )
            if outcome != "staged":
                return bool(outcome == "whole")
        return True

    async def expand(
        self,
        execution_id: str,
        node_id: str,
        *,
        n: int,
        window: int,
        max_failed: int,
        fail_fast: bool,
        bytes_max: int,
    ) -> bool:
        """Open as many items as there is room for; False when the node runs no more.

        Raises CorruptExecution.
        """
        outcome = await self._client.run(
            scripts.EXPAND_NODE,
            (
                self._stream,
                keys.status(execution_id),
                keys.node(execution_id, node_id),
                keys.map_of(execution_id, node_id),
                keys.map_todo(execution_id, node_id),
            ),
            execution_id,
            node_id,
            n,
            window,
            max_failed,
            "1" if fail_fast else "0",
            bytes_max,
        )
        if outcome in ("incomplete", "corrupt"):
            raise CorruptExecution(execution_id, f"the list of map {node_id!r} is damaged")
        return bool(outcome == "expanded")

    async def states(
        self, execution_id: str, node_id: str, indexes: Sequence[int | str]
    ) -> list[NodeState | None]:
        """None for an item that never had a place."""
        found: list[NodeState | None] = []
        for some in slices(indexes, NODES_PER_CALL_MAX):
            names = (keys.node(execution_id, item_id(node_id, one)) for one in some)
            texts = await self._client.execute("MGET", *names)
            found += (NodeState(one) if one in NodeState.__members__ else None for one in texts)
        return found

    async def outputs(
        self, execution_id: str, node_id: str, n: int, bytes_per_item: int
    ) -> list[bytes]:
        """Of each item as JSON, in the order of the list; `null` where there is none."""
        size = max(1, min(NODES_PER_CALL_MAX, SLICE_BYTES_MAX // max(1, bytes_per_item)))
        found: list[bytes] = []
        for some in slices(range(n), size):
            names = (keys.output(execution_id, item_id(node_id, one)) for one in some)
            texts = await self._client.execute("MGET", *names)
            found += (b"null" if one is None else raw_bytes(one) for one in texts)
        return found

    async def texts(self, execution_id: str, node_id: str, indexes: Sequence[int]) -> list[bytes]:
        """The items themselves, as JSON. Raises CorruptExecution."""
        if not indexes:
            return []
        try:
            found = await self._client.execute(
                "HMGET", keys.map_items(execution_id, node_id), *indexes
            )
        except WrongType as error:
            raise CorruptExecution(execution_id, f"the items of map {node_id!r}") from error
        return [raw_bytes(one or "null") for one in found]

    async def sizes(self, execution_id: str, node_id: str, indexes: Sequence[int]) -> list[int]:
        """Bytes of each item and its output together."""
        commands: list[Command] = []
        for one in indexes:
            commands.append(("HSTRLEN", keys.map_items(execution_id, node_id), one))
            commands.append(("STRLEN", keys.output(execution_id, item_id(node_id, one))))
        replies = [0 if is_wrong_type(one) else one for one in await self._freely(commands)]
        return [sum(replies[at : at + 2]) for at in range(0, len(replies), 2)]

    async def _freely(self, commands: Sequence[Command]) -> list[Any]:
        return await self._client.converse_freely(commands) if commands else []

    async def cancel_items(self, execution_id: str, node_id: str, n: int) -> None:
        """Mark those that have not ended, once the map was stopped or its execution cancelled."""
        for first in range(0, n, NODES_PER_CALL_MAX):
            await self._client.run(
                scripts.CANCEL_ITEMS,
                (
                    keys.status(execution_id),
                    keys.map_of(execution_id, node_id),
                    keys.RETRIES,
                    keys.ALARMS,
                    keys.waits(execution_id),
                    keys.map_open(execution_id, node_id),
                    self._stream,
                ),
                execution_id,
                node_id,
                first,
                min(first + NODES_PER_CALL_MAX, n),
            )

    async def places(self, execution_id: str, node_id: str) -> Places:
        """Raises CorruptExecution."""
        taken, waiting = await self._client.converse_freely(_places_calls(execution_id, node_id))
        return await self._places(execution_id, node_id, taken, waiting)

    async def _places(self, execution_id: str, node_id: str, taken: Any, waiting: Any) -> Places:
        if is_wrong_type(taken) or is_wrong_type(waiting):
            raise CorruptExecution(execution_id, f"the places of map {node_id!r} are damaged")
        indexes = sorted(taken, key=int)
        states = await self.states(execution_id, node_id, indexes)
        return Places(dict(zip(indexes, states, strict=True)), waiting)

    async def counts(self, execution_id: str, node_id: str) -> dict[str, int]:
        """How many items are in each state. Raises CorruptExecution."""
        # In one write, which Redis reads as one: of items that end in between, none is missed.
        values, state, taken, waiting = await self._client.converse_freely(
            [
                _standing_call(execution_id, node_id),
                ("GET", keys.node(execution_id, node_id)),
                *_places_calls(execution_id, node_id),
            ]
        )
        standing = _standing(execution_id, node_id, values)
        if standing is None:
            return {}
        counts: Counter[NodeState] = Counter()
        counts[NodeState.COMPLETED] += standing.ended - standing.failed
        counts[NodeState.FAILED] += standing.failed
        if state in set(NodeState) and NodeState(state).is_terminal:
            # What had not ended by then was not begun, or was stopped.
            counts[NodeState.CANCELLED] += standing.n - standing.ended
            return _in_order(counts)
        places = await self._places(execution_id, node_id, taken, waiting)
        counts.update(one for one in places.open.values() if one is not None)
        counts[NodeState.PENDING] += places.waiting
        left = standing.n - standing.ended - places.waiting - len(places.open)
        if NodeState.CANCELLED in places.open.values() or standing.is_over:
            counts[NodeState.CANCELLED] += left
        elif left > 0:
            repeated = min(left, await self._count_paused(execution_id, node_id, places.open))
            counts[NodeState.WAITING] += repeated
            counts[NodeState.RETRYING] += left - repeated
        return _in_order(counts)

    async def _count_paused(self, execution_id: str, node_id: str, placed: Collection[str]) -> int:
        """How many items wait between two calls, and have given their place away."""
        (reply,) = await self._client.converse_freely([("HKEYS", keys.waits(execution_id))])
        waiting = () if is_wrong_type(reply) else map(split_item, reply)
        return sum(above == node_id and index not in placed for above, index in waiting if index)

    async def remove(self, execution_id: str, node_id: str) -> None:
        """Remove all that is kept of the items, their number last."""
        reply = (
            await self._client.converse_freely([("HGET", keys.map_of(execution_id, node_id), "n")])
        )[0]
        n = 0 if is_wrong_type(reply) else count_of(reply)
        for some in slices(range(n), NODES_PER_CALL_MAX // 2):
            items = [item_id(node_id, one) for one in some]
            gone = [key(execution_id, one) for one in items for key in (keys.node, keys.output)]
            dates = [f"{execution_id} {one}" for one in items]
            commands: list[Command] = [
                ("DEL", *gone), ("ZREM", keys.RETRIES, *dates), ("ZREM", keys.ALARMS, *dates),
            ]  # fmt: skip
            await self._client.converse(commands)
        rest = (keys.map_items, keys.map_todo, keys.map_open, keys.map_of)
        await self._client.execute("DEL", *(key(execution_id, node_id) for key in rest))


def _standing_call(execution_id: str, node_id: str) -> Command:
    return ("HMGET", keys.map_of(execution_id, node_id), *_FIELDS)


def _standing(execution_id: str, node_id: str, reply: Any) -> MapStanding | None:
    if is_wrong_type(reply):
        raise CorruptExecution(execution_id, f"the map of {node_id!r} is no hash")
    if reply[0] is None:
        return None
    *numbers, failure, stopped = reply
    if not all(isinstance(one, str) and one.isdecimal() for one in numbers):
        raise CorruptExecution(execution_id, f"the counters of map {node_id!r} are damaged")
    n, window, max_failed, ended, failed, size, bytes_max = (int(one[:18]) for one in numbers)
    return MapStanding(
        n,
        window,
        max_failed,
        ended,
        failed,
        size,
        bytes_max,
        readable(failure or ""),
        stopped or "",
    )


def _places_calls(execution_id: str, node_id: str) -> Sequence[Command]:
    return (
        ("SMEMBERS", keys.map_open(execution_id, node_id)),
        ("LLEN", keys.map_todo(execution_id, node_id)),
    )


def _in_order(counts: Mapping[NodeState, int]) -> dict[str, int]:
    return {str(state): counts[state] for state in NodeState if counts[state] > 0}


def _portions(items: Sequence[Any]) -> Iterator[tuple[int, list[bytes]]]:
    """Slices of a list as JSON, each with the index of its first item."""
    texts: list[bytes] = []
    first = size = 0
    for index, item in enumerate(items):
        text = orjson.dumps(item)
        if texts and (len(texts) == NODES_PER_CALL_MAX or size + len(text) > SLICE_BYTES_MAX):
            yield first, texts
            texts, first, size = [], index, 0
        texts.append(text)
        size += len(text)
    if texts:
        yield first, texts
