"""What has happened: a capped stream that every transition appends to, read here and nowhere else.

An entry is what one script call did: pairs of type and text, the oldest first. So an event has a
place in its entry, and a reader that was cut off may go on in the middle of one.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final, Literal, NamedTuple

import orjson

from flowd.errors import StoreReadOnly
from flowd.store.attempt_records import CACHED
from flowd.store.redis import keys
from flowd.store.redis.client import RedisClient, translate
from flowd.store.redis.connecting import REPLICA, role_in
from flowd.store.redis.text import raw_bytes

PAGE: Final = 256
BLOCK_MS: Final = 5_000
ROLE_EVERY_S: Final = 5.0
EventType = Literal[
    "execution.submitted",
    "execution.triggered",
    "execution.waiting",
    "execution.completed",
    "execution.failed",
    "execution.cancelled",
    "execution.cancelling",
    "execution.finally_started",
    "execution.paused",
    "execution.resumed",
    "node.started",
    "node.completed",
    "node.skipped",
    "node.failed",
    "node.retrying",
    "node.requeued",
    "node.waiting",
    "node.woken",
    "schedule.missed",
    "schedule.skipped",
]
END_TYPES: Final = frozenset({"execution.completed", "execution.failed", "execution.cancelled"})

_EVENT_ID = re.compile(r"(\d{1,15})-(\d{1,18})(?:\.(\d{1,6}))?", re.ASCII)
# Behind every event an entry can have.
_WHOLE: Final = 1_000_000

# An entry as Redis has it: its id, and type and text in turn.
Entry = tuple[str, Sequence[str]]


class Position(NamedTuple):
    """Behind an event: the entry's id in two parts, and the event's place in the entry."""

    ms: int
    sequence: int
    place: int

    @property
    def event_id(self) -> str:
        return self.entry_id if self.place == 0 else f"{self.entry_id}.{self.place}"

    @property
    def entry_id(self) -> str:
        return f"{self.ms}-{self.sequence}"


BEGINNING: Final = Position(0, 0, _WHOLE)


def parse_event_id(text: str) -> Position | None:
    """Behind the event of this id (`<entry>`, or `<entry>.<place>`); None for what is no id."""
    found = _EVENT_ID.fullmatch(text)
    return found and Position(int(found[1]), int(found[2]), int(found[3] or 0))


def behind(entry_id: str) -> Position:
    """Behind all of an entry."""
    ms, _, sequence = entry_id.partition("-")
    return Position(int(ms), int(sequence), _WHOLE)


class StoredEvent(NamedTuple):
    """`node_id` and what follows are None for an event of the execution, or where unknown; the
    `execution_id` is empty for an event of a schedule."""

    position: Position
    type: str
    execution_id: str
    node_id: str | None = None
    attempt: int | None = None
    queued_ms: int | None = None
    waited_ms: int | None = None
    ran_ms: int | None = None
    worker: str | None = None
    # Of a failure: the name of the workflow, and the beginning of the error.
    name: str | None = None
    error: str | None = None
    # Of a wait: what wakes the node, and what has.
    waits_for: str | None = None
    woken_by: str | None = None
    # Of a schedule: its name, how many of its times were missed or skipped, the last of them.
    schedule: tuple[str, int, int] | None = None
    # Of a node that waits for its child, `child`; of that itself `parent`; of a node that took an
    # output that was kept, `cached`.
    rarely: Mapping[str, Any] | None = None

    @property
    def at_ms(self) -> int:
        return self.position.ms


def execution_ids(entry: Entry) -> Iterator[tuple[int, str]]:
    """The place of each event with the execution it is about, without reading the rest."""
    for place, text in enumerate(entry[1][1::2]):
        yield place, text.partition(" ")[0]


def parse_event(entry: Entry, end: Position, place: int) -> StoredEvent:
    """The event at a place of an entry; `end` is behind that entry."""
    pairs = entry[1]
    position = Position(end.ms, end.sequence, place)
    facts, _, more = pairs[2 * place + 1].partition("\n")
    execution_id, *parts = facts.split(" ", 6)
    if len(parts) < 6:
        parts = [one or "-" for one in parts] + ["-"] * (6 - len(parts))
    node_id, attempt, queued_ms, waited_ms, ran_ms, worker = parts
    return StoredEvent(
        position,
        pairs[2 * place],
        "" if execution_id == "-" else execution_id,
        None if node_id == "-" else node_id,
        _number(attempt),
        _number(queued_ms),
        _number(waited_ms),
        _number(ran_ms),
        None if worker == "-" else worker,
        *_more(more, is_cached=ran_ms == CACHED),
    )


def _more(text: str, *, is_cached: bool) -> Iterator[Any]:
    """What an event says besides, as the scripts wrote it."""
    try:
        told = orjson.loads(raw_bytes(text)) if text else {}
    except ValueError:
        told = None
    told = told if isinstance(told, dict) else {}
    for name in ("name", "error", "waits_for", "woken_by"):
        yield told.get(name)
    is_schedule = "schedule" in told
    times = told.get("times", 1), told.get("scheduled_ms", 0)
    yield (told["schedule"], *times) if is_schedule else None
    rarely = {name: told[name] for name in ("child", "parent") if name in told}
    yield (rarely | {"cached": True} if is_cached else rarely) or None


def _number(text: str) -> int | None:
    return int(text) if text.isdecimal() else None


class Page(NamedTuple):
    """`is_last` when there is no more behind it; `oldest_id` is that of the oldest entry kept."""

    entries: list[Entry]
    is_last: bool
    oldest_id: str | None

    def is_broken(self, after: Position) -> bool:
        """Whether what happened right behind this position may be kept no more."""
        return self.oldest_id is None or behind(self.oldest_id)[:2] > after[:2]


class Events:
    """Raises StoreUnavailable while Redis does not answer; every call may be repeated."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    @property
    def failovers(self) -> int:
        """How often this process has met another primary than before."""
        return self._client.lineage.failovers

    async def newest(self) -> Position:
        """Behind the newest entry; BEGINNING when there is none."""
        found = await self._client.execute("XREVRANGE", keys.EVENTS, "+", "-", "COUNT", 1)
        return behind(found[0][0]) if found else BEGINNING

    async def read(self, after: Position, count_max: int = PAGE) -> Page:
        """What is kept behind this position; the first entry may be partly old."""
        start = f"({after.entry_id}" if after.place >= _WHOLE else after.entry_id
        # The oldest is asked for last: what the cap takes in between is noticed, never overlooked.
        found, oldest = await self._client.converse(
            [
                ("XRANGE", keys.EVENTS, start, "+", "COUNT", count_max),
                ("XRANGE", keys.EVENTS, "-", "+", "COUNT", 1),
            ]
        )
        entries = [(entry_id, pairs) for entry_id, pairs in found]
        return Page(entries, len(entries) < count_max, oldest[0][0] if oldest else None)

    def open_tail(self) -> Tail:
        """A reader with a session of its own, to wait for what happens next."""
        return Tail(self._client)


class Tail:
    """Leaves a server that has become a replica: that answers reads, and has in between what its
    new primary sends it."""

    def __init__(self, client: RedisClient) -> None:
        self._session = client.new_session()
        self._lineage = client.lineage
        self._role_known_until_s = 0.0

    async def next(self, after: Position, block_ms: int = BLOCK_MS) -> list[Entry]:
        """Whole entries behind this one as soon as there are any; empty when none came in time."""
        now_s = asyncio.get_running_loop().time()
        is_role_asked = now_s >= self._role_known_until_s
        read = ("XREAD", "COUNT", PAGE, "BLOCK", block_ms, "STREAMS", keys.EVENTS, after.entry_id)
        *greetings, reply = await self._session.converse(
            [("HELLO",), read] if is_role_asked else [read], timeout_s=block_ms / 1000 + 5
        )
        if isinstance(reply, Exception):
            raise translate(reply) from reply
        if is_role_asked:
            if role_in(greetings[0]) == "replica":
                await self._session.close()
                raise StoreReadOnly(REPLICA)
            self._role_known_until_s = now_s + ROLE_EVERY_S
        self._lineage.note_heard()
        return [(entry_id, pairs) for entry_id, pairs in reply[0][1]] if reply else []

    async def close(self) -> None:
        await self._session.close()
