"""Mend what executions share where a hand, a restored backup or an emptied server has broken it."""

from __future__ import annotations

import contextlib
import time
from collections.abc import AsyncIterator
from typing import Final

from flowd.errors import StoreFull
from flowd.log import get_logger
from flowd.scheduler.duty import Duty
from flowd.scheduler.reconciler import Reconciler
from flowd.store import Store
from flowd.store.executions import now_ms

log = get_logger(__name__)

READMIT_EVERY_S: Final = 60.0
EXECUTIONS_PER_SLICE: Final = 1_000
BUDGET_S: Final = 0.1


class Readmit(Duty):
    """Every minute, in slices, find the executions that run and are not among the active, and have
    each in the list of its state. In the first round also in that of its name: an older version may
    have made it; and behind that round nothing else is in the lists."""

    name = "readmission"
    every_s = READMIT_EVERY_S

    def __init__(self, store: Store, reconciler: Reconciler) -> None:
        self._store = store
        self._reconciler = reconciler
        self._cursor = "0"
        self._is_first = True
        self._sweep: AsyncIterator[None] | None = None
        self._is_distrusted = False

    async def run(self, _now_s: float) -> float | None:
        end_s = time.monotonic() + BUDGET_S
        indexes = self._store.executions.indexes
        if self._is_distrusted:
            await indexes.distrust()
            self._is_distrusted, self._is_first = False, True
            self._cursor, self._sweep = "0", None
        while time.monotonic() < end_s:
            if self._sweep is not None:
                if await self._has_swept(self._sweep):
                    return None
                continue
            self._cursor, found = await self._store.executions.readmit_slice(
                self._cursor, EXECUTIONS_PER_SLICE, names=self._is_first
            )
            for execution_id in found:
                log.warning("execution.readmitted", execution_id=execution_id)
                self._reconciler.begin_anew()
            if self._cursor == "0":
                if not self._is_first:
                    return None
                self._sweep = indexes.sweep(now_ms())
        return 0.0

    async def _has_swept(self, sweep: AsyncIterator[None]) -> bool:
        """Go on with it; True at its end, when all lists are right."""
        try:
            async for _ in sweep:
                return False
        except BaseException:
            # What has raised is at its end: another one begins anew.
            self._sweep = None
            raise
        self._sweep = None
        # A server that is full takes the note another time.
        with contextlib.suppress(StoreFull):
            await self._store.executions.indexes.note_complete()
            self._is_first = False
        return True

    def distrust(self) -> None:
        """Look through all executions at once, then at each of their nodes."""
        self._is_distrusted = True
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
    """A stream has had ever more entries, as long as it is the same and has all its past. A replica
    that became the primary may lack some of it."""

    name = "lost entries"

    def __init__(self, store: Store, interval_s: float, readmit: Readmit) -> None:
        self.every_s = 0.9 * interval_s
        self._store = store
        self._readmit = readmit
        self._entries_added = 0
        self._failovers = 0

    async def run(self, _now_s: float) -> None:
        tasks = self._store.tasks
        known, self._entries_added = self._entries_added, await tasks.entries_added()
        failovers, self._failovers = self._failovers, tasks.failovers
        if self._failovers != failovers:
            tell = log.error if self._entries_added < known else log.warning
            tell("redis.failed_over", entries_before=known, entries=self._entries_added)
            self._readmit.distrust()
        elif self._entries_added < known:
            log.error("redis.emptied", entries_before=known, entries=self._entries_added)
            self._readmit.distrust()
