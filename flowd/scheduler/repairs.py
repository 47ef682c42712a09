"""Mend what executions share where a hand, a restored backup or an emptied server has broken it."""

from __future__ import annotations

import time
from typing import Final

from flowd.log import get_logger
from flowd.scheduler.duty import Duty
from flowd.scheduler.reconciler import Reconciler
from flowd.store import Store

log = get_logger(__name__)

READMIT_EVERY_S: Final = 60.0
EXECUTIONS_PER_SLICE: Final = 1_000
BUDGET_S: Final = 0.1


class Readmit(Duty):
    """Every minute, in slices, find the executions that run and are not among the active."""

    name = "readmission"
    every_s = READMIT_EVERY_S

    def __init__(self, store: Store, reconciler: Reconciler) -> None:
        self._store = store
        self._reconciler = reconciler
        self._cursor = "0"

    async def run(self, _now_s: float) -> float | None:
        end_s = time.monotonic() + BUDGET_S
        while time.monotonic() < end_s:
            self._cursor, found = await self._store.executions.readmit_slice(
                self._cursor, EXECUTIONS_PER_SLICE
            )
            for execution_id in found:
                log.warning("execution.readmitted", execution_id=execution_id)
                self._reconciler.begin_anew()
            if self._cursor == "0":
                return None
        return 0.0

    def distrust(self) -> None:
        """Look through all executions at once, then at each of their nodes."""
        self.hurry()
        self._reconciler.begin_anew()


class SetDamageAside(Duty):
    """First of all: whatever comes behind it may need the key. What was in it is found anew, as far
    as the keys of the executions say it."""

    name = "damaged keys"

    def __init__(self, store: Store, interval_s: float, readmit: Readmit) -> None:
        self.every_s = 0.9 * interval_s
        self._store = store
        self._readmit = readmit

    async def run(self, _now_s: float) -> None:
        for key in await self._store.tasks.set_aside():
            log.error("key.quarantined", key=key)
            self._readmit.distrust()


class NoticeLoss(Duty):
    """A stream has had ever more entries, as long as it is the same and has all its past."""

    name = "lost entries"

    def __init__(self, store: Store, interval_s: float, readmit: Readmit) -> None:
        self.every_s = 0.9 * interval_s
        self._store = store
        self._readmit = readmit
        self._entries_added = 0

    async def run(self, _now_s: float) -> None:
        known, self._entries_added = self._entries_added, await self._store.tasks.entries_added()
        if self._entries_added < known:
            log.error("redis.emptied", entries_before=known, entries=self._entries_added)
            self._readmit.distrust()
