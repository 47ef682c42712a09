"""What nodes have said, and their attempts: a stream for each attempt that has said something.

Refused when Redis is full: no node waits for its log, or fails for want of it.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol

from flowd.config import Settings
from flowd.errors import StoreUnavailable
from flowd.node_log import LogPiece
from flowd.store.attempt_records import AttemptRecord, parse_record
from flowd.store.executions import slices
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import (
    Argument,
    Command,
    RedisClient,
    is_wrong_type,
    script_call,
    translate,
)
from flowd.store.redis.text import raw_bytes, readable

ATTEMPTS_KEPT: Final = 20
# One reply: with entries of 4 KiB about a megabyte.
ENTRIES_PER_READ: Final = 256
_LOGS_PER_STEP: Final = 500
_LINE = re.compile(r"(\d{1,15}) ([a-z]+) (.*)", re.DOTALL)


class LogLine(NamedTuple):
    """`number` is that of its entry, `place` its own in there."""

    number: int
    place: int
    at_ms: int
    stream: str
    text: str


class LogSlice(NamedTuple):
    """Some of a log. `gaps` are the numbers of the entries before which lines are gone; `dropped`
    is how many are, in the whole log so far; `is_last` when there is no more."""

    lines: list[LogLine]
    gaps: list[int]
    dropped: int
    last: int
    is_last: bool


class LogName(NamedTuple):
    node_id: str
    attempt: int


class Attempt(NamedTuple):
    record: AttemptRecord
    error: str | None
    has_log: bool


class LogSource(Protocol):
    """Where a worker's session finds what is to be stored."""

    @property
    def is_pending(self) -> bool: ...

    @property
    def is_due(self) -> bool:
        """Something waits for longer than it may; never when nothing is pending."""

    def take(self) -> Sequence[LogPiece]: ...

    def settle(self, pieces: Sequence[LogPiece], outcomes: Sequence[str]) -> None:
        """`stored`, `kept` to be sent again, or why it was dropped."""


class Silence:
    """A source that never says anything."""

    is_pending = False
    is_due = False

    def take(self) -> Sequence[LogPiece]:
        return ()

    def settle(self, pieces: Sequence[LogPiece], outcomes: Sequence[str]) -> None:
        pass


class LogWriter:
    """The calls that add to logs, and what their replies mean."""

    def __init__(self, settings: Settings) -> None:
        self._bytes_max = int(settings.logs.execution_max_mb * 2**20)

    def call(self, piece: LogPiece) -> Command:
        execution_id, node_id, attempt = piece[:3]
        names = (
            keys.logs(execution_id),
            keys.run(execution_id),
            keys.log(execution_id, node_id, attempt),
        )
        arguments: list[Argument] = [execution_id, node_id, attempt, ATTEMPTS_KEPT]
        arguments += [self._bytes_max, piece.growth, piece.dropped, piece.lines]
        arguments += [len(piece.gone), *piece.gone]
        for entry in piece.entries:
            arguments += entry
        return script_call(scripts.APPEND_LOG, names, arguments)

    @staticmethod
    def outcome(reply: Any) -> str:
        """`stored`; `kept` where the server takes no writes for now; or why it was dropped."""
        if not isinstance(reply, Exception):
            return str(reply)
        error = translate(reply)
        return "kept" if isinstance(error, StoreUnavailable) else str(error)


class Logs:
    """Raises StoreUnavailable while Redis does not answer; reads only, but for `remove`."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def attempts(self, execution_id: str, node_id: str) -> list[Attempt]:
        """The last of them, the oldest first; the error of the newest is not among them."""
        (text,) = await self._fields(keys.attempts(execution_id), [node_id])
        newest = parse_record(text)
        if newest is None or newest.attempt is None:
            return []
        numbers = range(max(1, newest.attempt - ATTEMPTS_KEPT + 1), newest.attempt + 1)
        names = [f"{node_id} {number}" for number in numbers]
        kept = await self._fields(keys.history(execution_id), names[:-1]) if names[1:] else []
        scores = await self._scores(execution_id, names)
        found = []
        for line, score in zip([*kept, text], scores, strict=True):
            record_text, _, error = (line or "").partition("\n")
            record = parse_record(record_text)
            if record is not None:
                found.append(Attempt(record, readable(error) or None, score))
        return found

    async def _scores(self, execution_id: str, names: Sequence[str]) -> list[bool]:
        asked: list[Command] = [("ZMSCORE", keys.logs(execution_id), *names)]
        (reply,) = await self._client.converse_freely(asked)
        if is_wrong_type(reply):
            return [False] * len(names)
        return [score is not None for score in reply]

    async def _fields(self, key: str, fields: Sequence[str]) -> list[str | None]:
        (reply,) = await self._client.converse_freely([("HMGET", key, *fields)])
        return [None] * len(fields) if is_wrong_type(reply) else reply

    async def read(self, execution_id: str, name: LogName, after: int = 0) -> LogSlice:
        """What an attempt has said behind the entry of this number."""
        key = keys.log(execution_id, *name)
        (reply,) = await self._client.converse_freely(
            [("XRANGE", key, f"({after}-0", "+", "COUNT", ENTRIES_PER_READ)]
        )
        entries = [] if is_wrong_type(reply) else reply
        lines: list[LogLine] = []
        gaps, dropped, last = [], 0, after
        for entry_id, pairs in entries:
            number = int(entry_id.partition("-")[0])
            fields = dict(zip(pairs[::2], pairs[1::2], strict=True))
            told = fields.get("dropped", "")
            dropped = int(told[:15]) if told.isascii() and told.isdecimal() else dropped
            if number > last + 1:
                gaps.append(number)
            last = number
            lines += _lines(number, fields.get("lines", ""))
        return LogSlice(lines, gaps, dropped, last, len(entries) < ENTRIES_PER_READ)

    async def grown(
        self, execution_id: str, since_ms: int, count_max: int
    ) -> tuple[list[LogName], int]:
        """The logs of an execution that have grown at this time or later, and when the last has."""
        asked = ("ZRANGEBYSCORE", keys.logs(execution_id), since_ms, "+inf", "WITHSCORES")
        (reply,) = await self._client.converse_freely([(*asked, "LIMIT", 0, count_max)])
        flat = [] if is_wrong_type(reply) else reply
        names = [name for member in flat[::2] if (name := _name(member)) is not None]
        return names, int(float(flat[-1])) if flat else since_ms

    async def newest_first(self, execution_id: str) -> AsyncIterator[tuple[LogName, int]]:
        """All logs of an execution with the time they have last grown, the latest first."""
        at = 0
        while True:
            asked = ("ZRANGE", keys.logs(execution_id), at, at + _LOGS_PER_STEP - 1, "REV")
            (reply,) = await self._client.converse_freely([(*asked, "WITHSCORES")])
            flat = [] if is_wrong_type(reply) else reply
            for member, score in zip(flat[::2], flat[1::2], strict=True):
                if (name := _name(member)) is not None:
                    yield name, int(float(score))
            if len(flat) < 2 * _LOGS_PER_STEP:
                return
            at += _LOGS_PER_STEP

    async def dropped(self, execution_id: str) -> int:
        """How many lines were too many for all logs of an execution together."""
        (text,) = await self._fields(keys.run(execution_id), ["log_dropped"])
        return int(text[:15]) if text and text.isascii() and text.isdecimal() else 0

    async def remove(self, execution_ids: Sequence[str]) -> None:
        """Remove the logs of executions that are being deleted."""
        asked: list[Command] = [("TYPE", keys.logs(one)) for one in execution_ids]
        types = await self._client.converse(asked)
        for execution_id, kind in zip(execution_ids, types, strict=True):
            while kind == "zset":
                listed = await self._client.execute(
                    "ZRANGE", keys.logs(execution_id), 0, _LOGS_PER_STEP - 1
                )
                if not listed:
                    break
                gone = [keys.log(execution_id, *one.rpartition(" ")[::2]) for one in listed]
                await self._client.converse(
                    [("DEL", *gone), ("ZREM", keys.logs(execution_id), *listed)]
                )
        for some in slices(execution_ids, _LOGS_PER_STEP):
            names = [key for one in some for key in (keys.logs(one), keys.history(one))]
            await self._client.execute("DEL", *names)


def _lines(number: int, text: str) -> Iterator[LogLine]:
    whole = raw_bytes(text).decode("utf-8", "replace")
    for place, line in enumerate(whole.split("\n")):
        if found := _LINE.fullmatch(line):
            yield LogLine(number, place, int(found[1]), found[2], found[3])


def _name(member: str) -> LogName | None:
    node_id, _, attempt = member.rpartition(" ")
    is_number = attempt.isascii() and attempt.isdecimal() and len(attempt) <= 9
    return LogName(node_id, int(attempt)) if is_number else None
