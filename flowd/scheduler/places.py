"""Give places back that nobody gave back, and start who waits for one that is free."""

from __future__ import annotations

import time
from typing import Final

from flowd.log import get_logger
from flowd.scheduler.duty import Duty
from flowd.scheduler.reconciler import RECONCILE_EVERY_S
from flowd.store import Store

log = get_logger(__name__)

BUDGET_S: Final = 0.1


class SettlePlaces(Duty):
    """No end of an execution leaves a place taken, or a free one to nobody; a hand in the keys may,
    and a server that was restored."""

    name = "places"
    every_s = RECONCILE_EVERY_S

    def __init__(self, store: Store) -> None:
        self._store = store
        self._cursor = ""

    async def run(self, _now_s: float) -> float | None:
        end_s = time.monotonic() + BUDGET_S
        while time.monotonic() < end_s:
            self._cursor, started = await self._store.lifecycle.places.settle_slice(self._cursor)
            if started:
                log.warning("places.settled", started=started)
            if not self._cursor:
                break
        return 0.0 if self._cursor else None
