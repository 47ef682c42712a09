"""Forget queues that nobody uses any more: whoever looks at all queues looks at each of them."""

from __future__ import annotations

from typing import Final

from flowd.log import get_logger
from flowd.scheduler.duty import Duty
from flowd.store import Store

log = get_logger(__name__)

EVERY_S: Final = 60.0


class PruneQueues(Duty):
    """One that somebody names again is there again."""

    name = "queues"
    every_s = EVERY_S

    def __init__(self, store: Store) -> None:
        self._store = store

    async def run(self, _now_s: float) -> float | None:
        for queue in await self._store.tasks.queues.prune():
            log.info("queue.forgotten", queue=queue)
        return None
