"""Say once when Redis is full, and once when it is not any more."""

from __future__ import annotations

from typing import Final

from flowd.log import get_logger
from flowd.scheduler.duty import Duty
from flowd.store import Store

log = get_logger(__name__)

LOOK_EVERY_S: Final = 5.0


class NoteRoom(Duty):
    name = "room"
    every_s = LOOK_EVERY_S

    def __init__(self, store: Store) -> None:
        self._store = store
        self._is_full = False

    async def run(self, _now_s: float) -> None:
        shortages = await self._store.health.metrics.shortages()
        if shortages and not self._is_full:
            log.warning("redis.filled", reason=shortages[0])
        elif self._is_full and not shortages:
            log.info("redis.freed")
        self._is_full = bool(shortages)
