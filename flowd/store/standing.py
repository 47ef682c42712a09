"""Where outstanding work stands: places in the queue, who holds what, who is alive, what is full.

A look around for people: it reads what others write, takes no lock, and may be a moment old.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, TypeGuard

from flowd.config import Settings
from flowd.errors import MissingGroup, WrongType
from flowd.store.entries import Entry, Garbage, entry_order, id_of, name_in, parse_entry
from flowd.store.metrics import parse_tick
from flowd.store.queues import Queues
from flowd.store.redis import keys
from flowd.store.redis.client import Command, RedisClient, is_wrong_type, translate
from flowd.store.redis.connecting import parse_info
from flowd.workflow.ids import DEFAULT_QUEUE

# How far into the stream one look goes.
ENTRIES_MAX: Final = 10_000
_PAGE: Final = 1_000
_HOLDERS_MAX: Final = 1_000


class Place(NamedTuple):
    """An entry in the stream. `ahead` counts the entries before it that no worker has taken yet;
    it is None for one that was taken, whose worker is then `holder`."""

    entry: Entry
    ahead: int | None
    holder: str | None = None


@dataclass(frozen=True, slots=True)
class QueueView:
    """`trouble` is `stream_missing`, `group_missing`, `stream_corrupt`, or empty.

    `is_whole` when what was looked for and not found is not in the stream; otherwise it may stand
    behind the `ahead` entries in the queue that the look went past.
    """

    trouble: str = ""
    is_whole: bool = True
    ahead: int = 0
    places: Mapping[str, Place] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ClusterState:
    """`leases` is the heartbeat of each consumer, `owners` what it said of itself (JSON)."""

    leases: Mapping[str, int]
    owners: Mapping[str, str]
    is_full: bool
    scheduler_ticked_ms: int | None


class Standing:
    """Raises StoreUnavailable while Redis does not answer."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._group = settings.tasks.group
        self._queues = Queues(client, settings.tasks.stream, self._group)

    async def cluster_state(self) -> ClusterState:
        leases, owners, memory, ticked, server_time = await self._client.converse_freely(
            [
                ("HGETALL", keys.LEASES),
                ("HGETALL", keys.WORKERS),
                ("INFO", "memory"),
                ("GET", keys.SCHEDULER),
                ("TIME",),
            ]
        )
        beats = _pairs(leases)
        return ClusterState(
            {one: int(beat) for one, beat in beats.items() if _is_number(beat)},
            _pairs(owners),
            _is_full(memory),
            parse_tick(ticked, server_time),
        )

    async def in_flight(self) -> dict[str, int]:
        """How many nodes each consumer holds."""
        counts: Counter[str] = Counter()
        commands: list[Command] = [
            ("XPENDING", stream, self._group) for stream in await self._queues.streams()
        ]
        for pending in await self._client.converse_freely(commands):
            if isinstance(pending, Exception):
                _trouble(pending)
            else:
                counts.update({consumer: int(count) for consumer, count in pending[3] or ()})
        return counts

    async def queue(self, execution_id: str, queues: Mapping[str, str]) -> QueueView:
        """Look for the entries of these nodes, each in its queue, from the oldest entry on, until
        all are found."""
        views = [
            await self._queue(execution_id, queue, {one for one in queues if queues[one] == queue})
            for queue in sorted({DEFAULT_QUEUE, *queues.values()})
        ]
        return QueueView(
            next((view.trouble for view in views if view.trouble), ""),
            all(view.is_whole for view in views),
            max(view.ahead for view in views),
            {node_id: place for view in views for node_id, place in view.places.items()},
        )

    async def _queue(self, execution_id: str, queue: str, wanted: set[str]) -> QueueView:
        stream = self._queues.stream(queue)
        (groups,) = await self._client.converse_freely([("XINFO", "GROUPS", stream)])
        if isinstance(groups, Exception):
            return QueueView(_trouble(groups))
        described = [dict(zip(row[::2], row[1::2], strict=True)) for row in groups]
        mine = [row for row in described if row["name"] == self._group]
        if not mine:
            return QueueView("group_missing")
        return await self._search(execution_id, queue, wanted, mine[0]["last-delivered-id"])

    async def _search(
        self, execution_id: str, queue: str, wanted: set[str], last_delivered: str
    ) -> QueueView:
        stream = self._queues.stream(queue)
        delivered = entry_order(last_delivered)
        places: dict[str, Place] = {}
        passed = ahead = 0
        after = "-"
        while len(places) < len(wanted) and passed < ENTRIES_MAX:
            rows = await self._client.execute("XRANGE", stream, after, "+", "COUNT", _PAGE)
            for entry_id, fields in rows:
                entry = parse_entry(name_in(queue, entry_id), fields)
                is_waiting = entry_order(entry_id) > delivered
                if _is_wanted(entry, execution_id, wanted):
                    places[entry.node_id] = Place(entry, ahead if is_waiting else None)
                ahead += is_waiting
            passed += len(rows)
            if len(rows) < _PAGE:
                return QueueView("", True, ahead, await self._with_holders(places))
            after = f"({rows[-1][0]}"
        return QueueView("", len(places) == len(wanted), ahead, await self._with_holders(places))

    async def _with_holders(self, places: dict[str, Place]) -> dict[str, Place]:
        taken = [one for one, place in places.items() if place.ahead is None][:_HOLDERS_MAX]
        commands: list[Command] = []
        for one in taken:
            entry = places[one].entry
            entry_id, stream = id_of(entry.name), self._queues.stream(entry.queue)
            commands.append(("XPENDING", stream, self._group, entry_id, entry_id, 1))
        replies = await self._client.converse_freely(commands) if commands else []
        for one, reply in zip(taken, replies, strict=True):
            if isinstance(reply, list) and reply:
                places[one] = places[one]._replace(holder=reply[0][1])
        return places

    async def parked(self, execution_id: str, node_ids: Collection[str]) -> set[str]:
        """Of these nodes those that are kept back while the execution is paused."""
        if not node_ids:
            return set()
        (reply,) = await self._client.converse_freely(
            [("HMGET", keys.parked(execution_id), *node_ids)]
        )
        values = [] if isinstance(reply, Exception) else reply
        return {one for one, value in zip(node_ids, values, strict=False) if value is not None}


def _is_wanted(
    entry: Entry | Garbage | None, execution_id: str, wanted: set[str]
) -> TypeGuard[Entry]:
    return (
        isinstance(entry, Entry) and entry.execution_id == execution_id and entry.node_id in wanted
    )


def _pairs(reply: Any) -> dict[str, str]:
    """A hash; empty where the key is none."""
    if is_wrong_type(reply):
        return {}
    return dict(zip(reply[::2], reply[1::2], strict=True))


def _trouble(reply: Exception) -> str:
    error = translate(reply)
    if isinstance(error, MissingGroup):
        return "stream_missing"
    if isinstance(error, WrongType):
        return "stream_corrupt"
    raise error from reply


def _is_number(text: str) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 18


def _is_full(memory: Any) -> bool:
    # Its user may not ask.
    if isinstance(memory, Exception):
        return False
    numbers = parse_info(memory)
    used, limit = int(numbers.get("used_memory", 0)), int(numbers.get("maxmemory", 0))
    return 0 < limit <= used and numbers.get("maxmemory_policy", "noeviction") == "noeviction"
