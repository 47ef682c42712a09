"""Callbacks: whom somebody waits to be told of, an execution or a schedule, and how that goes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from flowd.errors import CorruptExecution, CorruptStore, StoreError, WrongType
from flowd.store.executions import now_ms
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Command, RedisClient, is_wrong_type
from flowd.store.redis.text import count_of


class CallbackState(StrEnum):
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


class DueCallback(NamedTuple):
    """`subject` is the id of an execution, or stands for a schedule: see `schedule`."""

    subject: str
    attempt: int

    @property
    def schedule(self) -> str | None:
        """The name of the schedule it is about, where it is."""
        return keys.schedule_in(self.subject)


class UntoldTimes(NamedTuple):
    """Times of a schedule that had no execution and were not told yet, and the last of them, ms;
    `before` are the attempts at what was told before."""

    missed: int
    skipped: int
    last_ms: int
    before: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a callback stands. `next_ms` is None before there is something to tell, and behind it."""

    state: CallbackState = CallbackState.PENDING
    attempts: int = 0
    next_ms: int | None = None
    last_status: int | None = None
    last_error: str | None = None
    delivered_ms: int | None = None


class Callbacks:
    """Raises StoreUnavailable while Redis does not answer."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def claim(
        self, count_max: int, *, repeat_after_ms: int
    ) -> tuple[list[DueCallback], float | None]:
        """Callbacks to try now, nobody else's for `repeat_after_ms`; seconds until the next is due,
        None when there is none."""
        *flat, left_ms = await self._client.run(
            scripts.CLAIM_CALLBACKS, (keys.CALLBACKS,), repeat_after_ms, count_max
        )
        due = [DueCallback(*pair) for pair in zip(flat[::2], flat[1::2], strict=True)]
        return due, left_ms / 1000 if left_ms != "" else None

    async def settle(
        self,
        due: DueCallback,
        state: CallbackState,
        *,
        pause_ms: int | None = None,
        status_code: int | None = None,
        error: str = "",
        told: UntoldTimes | None = None,
    ) -> str:
        """Write down how an attempt went: `settled`, `stale` (a later one began) or `unknown`.

        The next attempt is due after `pause_ms`. What a schedule was `told` of is told; what came
        since is due at once.
        """
        name = due.schedule
        outcome: str = await self._client.run(
            scripts.SETTLE_CALLBACK,
            (
                keys.CALLBACKS,
                keys.status(due.subject) if name is None else keys.schedule(name),
                keys.callback(due.subject),
            ),
            due.subject,
            due.attempt,
            state,
            "" if pause_ms is None else pause_ms,
            "" if status_code is None else status_code,
            error,
            now_ms(),
            *((told.missed, told.skipped) if told else ()),
        )
        return outcome

    async def postpone(self, due: DueCallback, pause_ms: int) -> str:
        """Give back one that was not tried: `postponed`, or `stale` (a later attempt began)."""
        outcome: str = await self._client.run(
            scripts.POSTPONE_CALLBACK,
            (keys.CALLBACKS, keys.callback(due.subject)),
            due.subject,
            due.attempt,
            pause_ms,
        )
        return outcome

    async def delivery(self, subject: str) -> Delivery:
        """As far as it has come; the default before the first attempt."""
        try:
            flat, due, ahead_ms = await self._client.converse(
                [
                    ("HGETALL", keys.callback(subject)),
                    ("ZSCORE", keys.CALLBACKS, subject),
                    ("HGET", keys.CLOCK, "ahead_ms"),
                ]
            )
        except WrongType as error:
            raise _corrupt(subject, str(error)) from error
        next_ms = int(float(due)) - count_of(ahead_ms) if due else None
        if not flat:
            return Delivery(next_ms=next_ms)
        named = dict(zip(flat[::2], flat[1::2], strict=True))
        try:
            return Delivery(
                state=CallbackState(named["state"]),
                attempts=int(named.get("attempts", 0)) - count_of(named.get("before")),
                next_ms=next_ms,
                last_status=_number(named.get("last_status")),
                last_error=named.get("last_error") or None,
                delivered_ms=_number(named.get("delivered_ms")),
            )
        except (KeyError, ValueError) as error:
            raise _corrupt(subject, f"its callback key: {error}") from error

    async def schedule_delivery(self, name: str) -> Delivery:
        """How it goes to tell of a schedule."""
        return await self.delivery(keys.about_schedule(name))

    async def untold(self, name: str) -> UntoldTimes:
        """What is to be told of a schedule. Raises CorruptStore."""
        key = keys.callback(keys.about_schedule(name))
        fields = ("missed", "skipped", "last_ms", "before")
        try:
            found = await self._client.execute("HMGET", key, *fields)
        except WrongType as error:
            raise CorruptStore(key) from error
        return UntoldTimes(*map(count_of, found))

    async def forgotten(self, names: Sequence[str]) -> list[str]:
        """Those of these schedules that have times to tell of, which nobody will."""
        subjects = [keys.about_schedule(name) for name in names]
        commands: list[Command] = []
        for one in subjects:
            commands.append(("HMGET", keys.callback(one), "state", "missed", "skipped"))
            commands.append(("ZSCORE", keys.CALLBACKS, one))
        replies = await self._client.converse_freely(commands) if commands else []
        return [
            name
            for name, fields, due in zip(names, replies[::2], replies[1::2], strict=True)
            if due is None and not is_wrong_type(fields) and _is_untold(*fields)
        ]

    async def finished_ms(self, execution_id: str) -> int | None:
        return _number(await self._client.execute("HGET", keys.run(execution_id), "finished_ms"))


def _is_untold(state: str | None, missed: str | None, skipped: str | None) -> bool:
    return state == CallbackState.PENDING and count_of(missed) + count_of(skipped) > 0


def _corrupt(subject: str, reason: str) -> StoreError:
    if keys.schedule_in(subject) is None:
        return CorruptExecution(subject, reason)
    return CorruptStore(keys.callback(subject))


def _number(text: str | None) -> int | None:
    return int(text) if text else None
