"""Callbacks: which executions somebody waits to be told of, and how the telling goes."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from flowd.errors import CorruptExecution, WrongType
from flowd.store.executions import now_ms
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import RedisClient
from flowd.store.redis.text import count_of


class CallbackState(StrEnum):
    PENDING = "PENDING"
    DELIVERED = "DELIVERED"
    FAILED = "FAILED"


class DueCallback(NamedTuple):
    execution_id: str
    attempt: int


@dataclass(frozen=True, slots=True)
class Delivery:
    """How a callback stands. `next_ms` is None before the execution has ended, and at its end."""

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
    ) -> str:
        """Write down how an attempt went: `settled`, `stale` (a later one began) or `unknown`.

        The next attempt is due after `pause_ms`.
        """
        outcome: str = await self._client.run(
            scripts.SETTLE_CALLBACK,
            (keys.CALLBACKS, keys.status(due.execution_id), keys.callback(due.execution_id)),
            due.execution_id,
            due.attempt,
            state,
            "" if pause_ms is None else pause_ms,
            "" if status_code is None else status_code,
            error,
            now_ms(),
        )
        return outcome

    async def postpone(self, due: DueCallback, pause_ms: int) -> str:
        """Give back one that was not tried: `postponed`, or `stale` (a later attempt began)."""
        outcome: str = await self._client.run(
            scripts.POSTPONE_CALLBACK,
            (keys.CALLBACKS, keys.callback(due.execution_id)),
            due.execution_id,
            due.attempt,
            pause_ms,
        )
        return outcome

    async def delivery(self, execution_id: str) -> Delivery:
        """As far as it has come; the default before the first attempt."""
        try:
            flat, due, ahead_ms = await self._client.converse(
                [
                    ("HGETALL", keys.callback(execution_id)),
                    ("ZSCORE", keys.CALLBACKS, execution_id),
                    ("HGET", keys.CLOCK, "ahead_ms"),
                ]
            )
        except WrongType as error:
            raise CorruptExecution(execution_id, str(error)) from error
        next_ms = int(float(due)) - count_of(ahead_ms) if due else None
        if not flat:
            return Delivery(next_ms=next_ms)
        named = dict(zip(flat[::2], flat[1::2], strict=True))
        try:
            return Delivery(
                state=CallbackState(named["state"]),
                attempts=int(named["attempts"]),
                next_ms=next_ms,
                last_status=_number(named.get("last_status")),
                last_error=named.get("last_error") or None,
                delivered_ms=_number(named.get("delivered_ms")),
            )
        except (KeyError, ValueError) as error:
            raise CorruptExecution(execution_id, f"its callback key: {error}") from error

    async def finished_ms(self, execution_id: str) -> int | None:
        return _number(await self._client.execute("HGET", keys.run(execution_id), "finished_ms"))


def _number(text: str | None) -> int | None:
    return int(text) if text else None
