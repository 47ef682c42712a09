"""Forget executions some time after they have ended, so that Redis does not fill with the past."""

from __future__ import annotations

import time
from itertools import accumulate
from typing import Final

from flowd.log import get_logger
from flowd.scheduler.duty import Duty
from flowd.store import Store
from flowd.store.executions import now_ms

log = get_logger(__name__)

DAY_MS: Final = 24 * 60 * 60 * 1000
# A tick deletes for no longer than this; what is left is for the next.
BUDGET_S: Final = 0.2
EXECUTIONS_PER_STEP: Final = 100
# Of executions that are deleted together.
NODES_MAX: Final = 2_000


class ForgetFinished(Duty):
    """Keeps executions for `finished_days` after their end, for ever where that is 0."""

    name = "retention"

    def __init__(self, store: Store, interval_s: float, finished_days: float) -> None:
        self.every_s = 0.9 * interval_s
        self._store = store
        self._finished_days = finished_days

    async def run(self, _now_s: float) -> None:
        await forget_finished(self._store, self._finished_days, now_ms())


async def forget_finished(store: Store, finished_days: float, at_ms: int) -> int:
    """Delete executions that ended more than `finished_days` ago; how many. 0 days keeps all."""
    if finished_days == 0:
        return 0
    before_ms = at_ms - int(finished_days * DAY_MS)
    end_s = time.monotonic() + BUDGET_S
    forgotten = 0
    while time.monotonic() < end_s:
        execution_ids = await store.finished.ended_before(before_ms, EXECUTIONS_PER_STEP)
        totals = accumulate(await store.health.inspection.node_counts(execution_ids))
        some = [one for one, total in zip(execution_ids, totals, strict=True) if total <= NODES_MAX]
        # At least one, however large.
        some = some or execution_ids[:1]
        await store.finished.delete(some)
        forgotten += len(some)
        if len(some) == len(execution_ids) < EXECUTIONS_PER_STEP:
            break
    if forgotten:
        log.info("executions.forgotten", count=forgotten, finished_days=finished_days)
    return forgotten
