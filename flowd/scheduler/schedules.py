"""Start what schedules have to start when its time has come."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from flowd.errors import FlowdError, StoreUnavailable
from flowd.log import get_logger
from flowd.orchestrator.input_fit import InputFit
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.schedules import Firings
from flowd.scheduler.duty import Duty, backoff_s
from flowd.scheduler.reconciler import RECONCILE_EVERY_S
from flowd.store import Store
from flowd.store.executions import slices
from flowd.store.schedules import DueSchedule

log = get_logger(__name__)

# However many are due at once, whoever waits for a date has his turn.
BUDGET_S: Final = 0.5
AT_ONCE: Final = 10
REASON_CHARS_MAX: Final = 500


class ReadmitSchedules(Duty):
    """No step leaves a schedule that nobody looks at; a hand in the keys may."""

    name = "schedule check"
    every_s = RECONCILE_EVERY_S

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, _now_s: float) -> None:
        for name in await self._store.schedules.readmit():
            log.warning("schedule.readmitted", schedule=name)


class FireSchedules(Duty):
    name = "schedules"

    def __init__(self, store: Store, plans: Plans, input_fit: InputFit | None = None) -> None:
        self._store = store
        self._firings = Firings(store, plans, input_fit)
        # None where no schedule is due later, or nobody knows.
        self.next_in_s: float | None = None

    async def run(self, _now_s: float) -> None:
        self.next_in_s = None
        end_s = time.monotonic() + BUDGET_S
        while True:
            page = await self._store.schedules.due()
            self._firings.forget_saved()
            for some in slices(page.schedules, AT_ONCE):
                await self._attend_each(some, page.now_ms)
            if not page.schedules:
                if page.next_in_ms is not None:
                    self.next_in_s = page.next_in_ms / 1000
                return
            if time.monotonic() > end_s:
                self.next_in_s = 0.0
                return

    async def _attend_each(self, some: Sequence[DueSchedule], now_ms: int) -> None:
        """None waits for the answer about another. Raises when Redis was away for any of them."""
        attending = (self._attend(due, now_ms) for due in some)
        for end in await asyncio.gather(*attending, return_exceptions=True):
            if isinstance(end, BaseException):
                raise end

    async def _attend(self, due: DueSchedule, now_ms: int) -> None:
        """One that cannot be fired holds up no other, and is tried again."""
        try:
            await self._firings.attend(due, now_ms)
        except StoreUnavailable:
            raise
        except Exception as error:  # noqa: BLE001 - a defect of one is not to stop the others
            is_foreseen = isinstance(error, FlowdError)
            reason = str(error) if is_foreseen else f"{type(error).__name__}: {error}"
            if due.failures & (due.failures + 1) == 0:
                facts = {} if is_foreseen else {"error": error}
                log.error(
                    "schedule.failed",
                    schedule=due.name,
                    reason=reason,
                    failures=due.failures + 1,
                    **facts,
                )
            pause_ms = int(1000 * backoff_s(due.failures + 1))
            await self._store.schedules.postpone(
                due.name, due.revision, pause_ms, reason[:REASON_CHARS_MAX]
            )
