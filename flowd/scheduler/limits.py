"""The safety net under limits: what no way out has given back is found here, a slice at a time."""

from __future__ import annotations

import time
from typing import Final

from flowd.log import get_logger
from flowd.scheduler.duty import Duty
from flowd.store import Store

log = get_logger(__name__)

CHECK_EVERY_S: Final = 10.0
BUDGET_S: Final = 0.1


class CheckLimits(Duty):
    """Strikes off who holds a place or waits for one in vain, and gives on what is free."""

    name = "limits"
    every_s = CHECK_EVERY_S

    def __init__(self, store: Store) -> None:
        self._store = store
        self._after = ""

    async def run(self, _now_s: float) -> float | None:
        end_s = time.monotonic() + BUDGET_S
        while time.monotonic() < end_s:
            self._after, struck = await self._store.tasks.limits.check_slice(self._after)
            if struck:
                log.warning("limits.mended", nodes=struck)
            if not self._after:
                break
        return 0.0 if self._after else None
