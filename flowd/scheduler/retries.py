"""Put nodes whose next attempt is due in front of the workers."""

from __future__ import annotations

from typing import Final

from flowd.log import get_logger
from flowd.scheduler.duty import Duty
from flowd.store import Store

log = get_logger(__name__)

# Less than this a slow answer may seem to be.
CLOCK_JUMP_MS: Final = 2_000


class DispatchRetries(Duty):
    """Also after the server's clock was put back: nobody waits for it to catch up."""

    name = "retries"

    def __init__(self, store: Store) -> None:
        self._store = store
        self.next_in_s: float | None = None
        # Both at the last look: the server's wall clock, ms, and our monotonic one.
        self._server_clock: tuple[int, float] | None = None

    async def run(self, now_s: float) -> None:
        self.next_in_s = None
        found = await self._store.retries.dispatch()
        if self._server_clock is not None:
            then_ms, then_s = self._server_clock
            put_back_ms = round(then_ms + 1000 * (now_s - then_s)) - found.now_ms
            if put_back_ms > CLOCK_JUMP_MS:
                log.warning("clock.put_back", by_s=round(put_back_ms / 1000))
                await self._store.retries.hasten(put_back_ms)
                found = await self._store.retries.dispatch()
        self._server_clock = (found.now_ms, now_s)
        self.next_in_s = found.next_in_s
