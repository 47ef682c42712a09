"""Nodes that wait for a date: that of their next attempt, or the end of a wait."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Final, NamedTuple

from flowd.config import Settings
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import RedisClient

RETRIES_PER_CALL_MAX: Final = 500
RETRIES_PER_SCAN: Final = 1_000
BELL_S: Final = 30
# However many are due at once, those who wait for something else have their turn.
CALLS_MAX: Final = 20


class Dispatched(NamedTuple):
    """Seconds until the next node is due, None when none waits."""

    next_in_s: float | None


class Retries:
    """Raises StoreUnavailable while Redis does not answer; every call may be repeated."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._bell = client.new_session()
        self._ringing: asyncio.Task[Any] | None = None
        self._stream = settings.tasks.stream

    async def dispatch(self) -> Dispatched:
        """Put those whose time has come in front of the workers, 10,000 at most."""
        for _ in range(CALLS_MAX):
            moved, left_ms = await self._client.run(
                scripts.DISPATCH_RETRIES,
                (keys.RETRIES, self._stream, keys.ALARMS, keys.LIMITS_DUE),
                RETRIES_PER_CALL_MAX,
            )
            if moved < RETRIES_PER_CALL_MAX:
                break
        return Dispatched(left_ms / 1000 if left_ms != "" else None)

    async def keep_clock(self, reached_ms: int, jump_ms: int) -> tuple[int, int]:
        """The clock by which everything waits, and how far the server's was put back before it, ms.

        `reached_ms` is what it must have reached by now, as far as the caller knows, or 0; the
        server's may differ from that by `jump_ms`.
        """
        clock_ms, put_back_ms = await self._client.run(
            scripts.KEEP_CLOCK, (keys.CLOCK,), reached_ms, jump_ms
        )
        return clock_ms, put_back_ms

    async def waiting(self) -> list[tuple[str, str]]:
        """All that have a date, as execution id and node id; one that comes or goes meanwhile may
        lack."""
        return [one async for page in self.waiting_pages() for one in page]

    async def waiting_pages(self) -> AsyncIterator[list[tuple[str, str]]]:
        """The same, some at a time: what waits for its next attempt, for a date, for a moment."""
        for key in (keys.RETRIES, keys.ALARMS):
            cursor = ""
            while cursor != "0":
                cursor, flat = await self._client.execute(
                    "ZSCAN", key, cursor or "0", "COUNT", RETRIES_PER_SCAN
                )
                pairs = (member.partition(" ") for member in flat[::2])
                yield [(execution_id, node_id) for execution_id, _, node_id in pairs]

    async def wait_for_change(self, timeout_s: float) -> None:
        """Sleep, but no longer than until a node is to run earlier than all that waited before."""
        if self._ringing is None:
            # A server that has nothing to do looks but ten times a second whether a block is over:
            # the sleep ends by the clock here, and the block goes on.
            self._ringing = asyncio.create_task(
                self._bell.execute("BLPOP", keys.RETRIES_WAKEUP, BELL_S, timeout_s=BELL_S + 5)
            )
        await asyncio.wait({self._ringing}, timeout=timeout_s)
        if self._ringing.done():
            ringing, self._ringing = self._ringing, None
            ringing.result()

    async def close(self) -> None:
        if self._ringing is not None:
            self._ringing.cancel()
            await asyncio.gather(self._ringing, return_exceptions=True)
        await self._bell.close()
