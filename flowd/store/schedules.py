"""Schedules: what they say, how far each has come, and who holds a place in it.

Times are Unix ms by the server's clock, and stay what they are when that is put back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final, Literal, NamedTuple

from flowd.config import Settings
from flowd.errors import UnknownDefinition
from flowd.store.making import Making
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Argument, Command, RedisClient, is_wrong_type
from flowd.store.redis.text import count_of

FiringKind = Literal["due", "late", "queued", "hand", "force"]

DUE_PER_CALL_MAX: Final = 100
HOLDERS_SHOWN_MAX: Final = 100
_SLICE: Final = 1_000
# What stands for a time that may be whatever it is.
_ANY: Final = "*"
_FIELDS: Final = (
    *("said", "revision", "next_ms", "queued_ms", "fired", "missed", "skipped"),
    *("last_ms", "last_id", "error", "failures", "callback"),
)


class DueSchedule(NamedTuple):
    """A schedule whose time has come, as it stands; `said` is JSON."""

    name: str
    said: str
    revision: str
    next_ms: int | None
    queued_ms: int | None
    failures: int


class DuePage(NamedTuple):
    """`now_ms` is by the server's clock; `next_in_ms` None when none is due later."""

    now_ms: int
    next_in_ms: int | None
    schedules: list[DueSchedule]


class ScheduleRow(NamedTuple):
    """All that is known of a schedule at `now_ms`; `holders` has 100 of them at most."""

    name: str
    said: str
    revision: str
    next_ms: int | None
    queued_ms: int | None
    fired: int
    missed: int
    skipped: int
    last_ms: int | None
    last_id: str | None
    error: str | None
    failures: int
    has_callback: bool
    holders: Sequence[str]
    now_ms: int


class Fired(NamedTuple):
    """The outcome word of fire_schedule.lua, and executions that hold a place."""

    outcome: str
    holders: Sequence[str]


class Firing(NamedTuple):
    """One time of a schedule, as it was seen, and what it goes on to.

    `seen` are its next and its queued time; None of one that runs by hand, whatever they are.
    `making` is what its execution is made of; None where none is to run, or not prepared yet.
    """

    name: str
    revision: str
    seen: tuple[int | None, int | None] | None
    kind: FiringKind
    overlap: str
    time_ms: int | None = None
    missed: int = 0
    missed_ms: int = 0
    moves_to: int | None = None
    making: Making | None = None
    key_digest: str = ""

    @property
    def moves_on(self) -> bool:
        return self.kind in ("due", "late")


class Schedules:
    """Every method raises StoreUnavailable while Redis does not answer; each may be repeated."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._stream = settings.tasks.stream

    async def due(self, count_max: int = DUE_PER_CALL_MAX) -> DuePage:
        """Those to be looked at now, who has waited longest first."""
        now_ms, left_ms, *flat = await self._client.run(
            scripts.DUE_SCHEDULES, (keys.SCHEDULES_DUE,), count_max
        )
        rows = [flat[at : at + 6] for at in range(0, len(flat), 6)]
        found = [
            DueSchedule(name, said, revision, _time(next_ms), _time(queued_ms), count_of(failures))
            for name, said, revision, next_ms, queued_ms, failures in rows
        ]
        return DuePage(now_ms, None if left_ms == "" else left_ms, found)

    async def fire(self, firing: Firing) -> Fired:
        """Do what the firing says, once among all who say it."""
        seen = (_ANY, _ANY) if firing.seen is None else map(_text, firing.seen)
        making = firing.making
        outcome, *holders = await self._client.run(
            scripts.FIRE_SCHEDULE,
            (
                keys.schedule(firing.name),
                keys.schedule_holders(firing.name),
                *(keys.SCHEDULES_DUE, keys.ACTIVE, self._stream),
                *(keys.CONTINUATIONS, keys.EXECUTIONS),
                *((keys.idempotency(firing.key_digest),) if firing.key_digest else ()),
            ),
            *(firing.name, firing.revision, *seen, _text(firing.time_ms)),
            *(firing.kind, firing.overlap, firing.missed, firing.missed_ms),
            _text(firing.moves_to) if firing.moves_on else _ANY,
            *(_made_of(making) if making else ("", "", "0", "")),
        )
        return Fired(outcome, holders)

    async def postpone(self, name: str, revision: str, pause_ms: int, why: str) -> None:
        """Look at it again after a pause, as its execution could not be made."""
        await self._client.run(
            scripts.POSTPONE_SCHEDULE,
            (keys.schedule(name), keys.SCHEDULES_DUE),
            *(name, revision, pause_ms, why),
        )

    async def put(
        self,
        name: str,
        said: bytes,
        *,
        workflow: str,
        revision: str,
        next_ms: int | None,
        missed: int = 0,
        missed_ms: int = 0,
        has_callback: bool = False,
    ) -> bool:
        """Make it, with an empty revision, or change it; False when it is another one by now.

        Raises UnknownDefinition where `workflow` is not saved.
        """
        outcome = await self._client.run(
            scripts.PUT_SCHEDULE,
            (
                *(keys.schedule(name), keys.SCHEDULES_DUE, keys.SCHEDULES),
                *(keys.saved_definition(workflow), keys.schedules_of(workflow)),
                *(keys.CALLBACKS, keys.callback(keys.about_schedule(name))),
            ),
            *(name, revision, said, _text(next_ms), missed, missed_ms, workflow),
            "1" if has_callback else "0",
        )
        if outcome == "unknown":
            raise UnknownDefinition(workflow)
        return bool(outcome == "put")

    async def delete(self, name: str) -> bool:
        """False when there is none."""
        outcome = await self._client.run(
            scripts.DELETE_SCHEDULE,
            (
                keys.schedule(name),
                keys.schedule_holders(name),
                *(keys.SCHEDULES_DUE, keys.SCHEDULES),
                *(keys.CALLBACKS, keys.callback(keys.about_schedule(name))),
            ),
            name,
        )
        return bool(outcome == "deleted")

    async def now_ms(self) -> int:
        seconds, micros = await self._client.execute("TIME")
        return int(seconds) * 1000 + int(micros) // 1000

    async def rows(self, names: Sequence[str]) -> list[ScheduleRow]:
        """Those of these there are."""
        if not names:
            return []
        commands: list[Command] = [("TIME",)]
        for name in names:
            commands.append(("HMGET", keys.schedule(name), *_FIELDS))
            commands.append(("SSCAN", keys.schedule_holders(name), 0, "COUNT", HOLDERS_SHOWN_MAX))
        (seconds, micros), *replies = await self._client.converse_freely(commands)
        now_ms = int(seconds) * 1000 + int(micros) // 1000
        found = zip(names, replies[::2], replies[1::2], strict=True)
        return [
            _row(name, fields, [] if is_wrong_type(held) else held[1], now_ms)
            for name, fields, held in found
            if not is_wrong_type(fields) and fields[0] is not None
        ]

    async def row(self, name: str) -> ScheduleRow | None:
        rows = await self.rows([name])
        return rows[0] if rows else None

    async def names(self, count_max: int, after: str | None = None) -> list[str]:
        """In the order of the alphabet, behind this one."""
        start = "-" if after is None else f"({after}"
        found: list[str] = await self._client.execute(
            *("ZRANGE", keys.SCHEDULES, start, "+", "BYLEX", "LIMIT", 0, count_max)
        )
        return found

    async def pages(self) -> AsyncIterator[list[ScheduleRow]]:
        """All there are, some at a time."""
        names: list[str] = await self.names(DUE_PER_CALL_MAX)
        while names:
            yield await self.rows(names)
            names = await self.names(DUE_PER_CALL_MAX, names[-1])

    async def readmit(self) -> list[str]:
        """Have each looked at that has a time and is not, and listed each that is looked at, where
        a hand in the keys has taken it out; those that were not looked at."""
        found: list[str] = []
        async for rows in self.pages():
            looks = await self.looks([row.name for row in rows])
            for row, look_ms in zip(rows, looks, strict=True):
                time_ms = row.next_ms if row.queued_ms is None else row.queued_ms
                if look_ms is None and time_ms is not None:
                    found.append(row.name)
                    await self._client.execute("ZADD", keys.SCHEDULES_DUE, "NX", time_ms, row.name)
        at = 0
        while names := await self._client.execute(
            "ZRANGE", keys.SCHEDULES_DUE, at, at + _SLICE - 1
        ):
            at += _SLICE
            scores = await self._client.execute("ZMSCORE", keys.SCHEDULES, *names)
            for name, score in zip(names, scores, strict=True):
                if score is None and await self.row(name) is not None:
                    await self._client.execute("ZADD", keys.SCHEDULES, 0, name)
        return found

    async def looks(self, names: Sequence[str]) -> list[int | None]:
        """When each is looked at next."""
        if not names:
            return []
        scores = await self._client.execute("ZMSCORE", keys.SCHEDULES_DUE, *names)
        return [None if one is None else int(float(one)) for one in scores]


def _made_of(making: Making) -> Sequence[Argument]:
    is_staged = "1" if making.is_staged else "0"
    head = (making.execution_id, making.given_input, is_staged, making.place)
    return (*head, *making.common)


def _row(
    name: str, fields: Sequence[str | None], holders: Sequence[str], now_ms: int
) -> ScheduleRow:
    said: Mapping[str, str | None] = dict(zip(_FIELDS, fields, strict=True))
    return ScheduleRow(
        name,
        said["said"] or "",
        said["revision"] or "",
        _time(said["next_ms"]),
        _time(said["queued_ms"]),
        count_of(said["fired"]),
        count_of(said["missed"]),
        count_of(said["skipped"]),
        _time(said["last_ms"]),
        said["last_id"],
        said["error"],
        count_of(said["failures"]),
        said["callback"] is not None,
        sorted(holders)[:HOLDERS_SHOWN_MAX],
        now_ms,
    )


def _text(time_ms: int | None) -> Argument:
    return "" if time_ms is None else time_ms


def _time(text: str | None) -> int | None:
    is_time = text is not None and len(text) <= 16 and text.isascii() and text.isdecimal()
    return int(text) if is_time and text is not None else None
