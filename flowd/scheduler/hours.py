"""Note at the beginning of each hour how many executions had ended by then."""

from __future__ import annotations

import contextlib

from flowd.errors import StoreFull
from flowd.scheduler.duty import Duty
from flowd.store import Store
from flowd.store.executions import now_ms
from flowd.store.indexes import HOUR_MS


class NoteHours(Duty):
    """What ends counts itself; this says how far the counters were, so that an hour has its own."""

    name = "hours"

    def __init__(self, store: Store, interval_s: float) -> None:
        self.every_s = 0.9 * interval_s
        self._store = store
        self._noted = 0

    async def run(self, _now_s: float) -> None:
        at_ms = now_ms()
        if at_ms // HOUR_MS == self._noted:
            return
        # A server that is full takes the note another time.
        with contextlib.suppress(StoreFull):
            await self._store.executions.indexes.note_hour(at_ms // HOUR_MS)
            await self._store.executions.indexes.forget_ended(at_ms)
            self._noted = at_ms // HOUR_MS
