"""Carry on with what a process began and did not live to end."""

from __future__ import annotations

from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import finish_continuations
from flowd.scheduler.duty import Duty
from flowd.store import Store


class FinishContinuations(Duty):
    def __init__(self, store: Store, plans: Plans, interval_s: float) -> None:
        self.every_s = 0.9 * interval_s
        self._store = store
        self._plans = plans

    async def run(self, _now_s: float) -> None:
        await finish_continuations(self._store, self._plans)
