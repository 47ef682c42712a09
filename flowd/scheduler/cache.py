"""Forget outputs that were kept for equal calls and are over, also where no further one is kept."""

from __future__ import annotations

import contextlib
import time
from typing import Final

from flowd.errors import StoreFull
from flowd.scheduler.duty import Duty
from flowd.store import Store

EVERY_S: Final = 60.0
BUDGET_S: Final = 0.1


class TrimCache(Duty):
    """What is over is never read; this is about its room."""

    name = "cache"
    every_s = EVERY_S

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, _now_s: float) -> float | None:
        end_s = time.monotonic() + BUDGET_S
        # A server that is full takes no script that may keep something: another time.
        with contextlib.suppress(StoreFull):
            while await self._store.tasks.cache.trim():
                if time.monotonic() > end_s:
                    return 0.0
        return None
