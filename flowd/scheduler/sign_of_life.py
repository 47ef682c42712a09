"""Let everybody see that a scheduler works."""

from __future__ import annotations

from flowd.scheduler.duty import Duty
from flowd.store import Store


class SignOfLife(Duty):
    name = "sign of life"

    def __init__(self, store: Store, interval_s: float) -> None:
        self.every_s = 0.9 * interval_s
        self._store = store

    async def run(self, _now_s: float) -> None:
        await self._store.health.metrics.beat()
