"""Keep the clock by which everything waits from going back when the server's is put back."""

from __future__ import annotations

import time
from typing import Final, NamedTuple

from flowd.log import get_logger
from flowd.scheduler.duty import Duty
from flowd.store import Store

log = get_logger(__name__)

# Less than this a clock may seem to be behind that is only corrected.
CLOCK_JUMP_MS: Final = 2_000


class _Reading(NamedTuple):
    clock_ms: int
    read_at_s: float


class KeepClock(Duty):
    """Nobody waits for a clock that was put back to catch up: not what is to run again, and not
    who is to be told of an end."""

    name = "clock"

    def __init__(self, store: Store, interval_s: float) -> None:
        self.every_s = 0.9 * interval_s
        self._store = store
        self._last: _Reading | None = None

    async def run(self, _now_s: float) -> None:
        reached_ms = 0
        if self._last is not None:
            passed_s = time.monotonic() - self._last.read_at_s
            reached_ms = self._last.clock_ms + int(1000 * passed_s)
        clock_ms, put_back_ms = await self._store.retries.keep_clock(reached_ms, CLOCK_JUMP_MS)
        self._last = _Reading(clock_ms, time.monotonic())
        if put_back_ms > CLOCK_JUMP_MS:
            log.warning("redis.clock_moved_back", by_s=round(put_back_ms / 1000))
