"""Put nodes whose next attempt is due in front of the workers."""

from __future__ import annotations

from flowd.scheduler.duty import Duty
from flowd.store import Store


class DispatchRetries(Duty):
    name = "retries"

    def __init__(self, store: Store) -> None:
        self._store = store
        # None where no node waits, or nobody knows.
        self.next_in_s: float | None = None

    async def run(self, _now_s: float) -> None:
        self.next_in_s = None
        self.next_in_s = (await self._store.retries.dispatch()).next_in_s
