"""Carry on with what a process began and did not live to end."""

from __future__ import annotations

import asyncio
import math
import time
from dataclasses import dataclass
from typing import Final

from flowd.log import get_logger
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import finish_continuation
from flowd.scheduler.duty import REDIS_AWAY, Duty, backoff_s
from flowd.store import Store
from flowd.store.executions import Continuation

log = get_logger(__name__)

# Whoever began it is dead, or so slow that doing it twice costs less than to wait.
OVERDUE_S: Final = 5.0
SUBMISSION_OVERDUE_S: Final = 60.0
CONTINUATIONS_PER_RUN: Final = 1_000
BUDGET_S: Final = 0.5
# One that takes longer is broken off, and goes on when the others have had their turn.
SLICE_S: Final = 5.0
# One that was broken off so often does not end: it is set aside, and tried less and less often.
SLICES_MAX: Final = 3


@dataclass(slots=True)
class _Case:
    """Of one continuation: when it was first seen, and how it went."""

    seen_s: float
    retry_at_s: float = -math.inf
    slices: int = 0
    failures: int = 0

    def is_due(self, verb: str, now_s: float) -> bool:
        """By our own clock: whoever began it may have had another, and clocks are put back."""
        overdue_s = SUBMISSION_OVERDUE_S if verb == "submit" else OVERDUE_S
        return now_s >= max(self.seen_s + overdue_s, self.retry_at_s)


def new_slice() -> asyncio.Timeout:
    """What one has at a stretch."""
    return asyncio.timeout(SLICE_S)


class FinishContinuations(Duty):
    """One that fails or does not end is set aside, named, and tried again behind all the others."""

    name = "continuations"

    def __init__(self, store: Store, plans: Plans, interval_s: float) -> None:
        self.every_s = 0.9 * interval_s
        self._store = store
        self._plans = plans
        self._cases: dict[str, _Case] = {}

    async def run(self, now_s: float) -> None:
        found = await self._store.executions.continuations(CONTINUATIONS_PER_RUN)
        cases = self._cases = {
            one.member: self._cases.get(one.member) or _Case(now_s) for one in found
        }
        due = [one for one in found if cases[one.member].is_due(one.verb, now_s)]
        end_s = time.monotonic() + BUDGET_S
        for one in sorted(due, key=lambda one: cases[one.member].slices):
            await self._carry_on(one, cases[one.member], now_s)
            if time.monotonic() > end_s:
                return

    async def _carry_on(self, one: Continuation, case: _Case, now_s: float) -> None:
        try:
            async with new_slice() as limit:
                await finish_continuation(self._store, self._plans, one)
        except REDIS_AWAY:
            raise
        except Exception as error:  # noqa: BLE001 - what fails is one continuation, not the others
            if not limit.expired():
                await self._set_aside(one, case, now_s, f"{type(error).__name__}: {error}")
                return
            case.slices += 1
            if case.slices >= SLICES_MAX:
                reason = f"it did not end within {SLICES_MAX} times {SLICE_S:g} s"
                await self._set_aside(one, case, now_s, reason)
            return
        await self._store.health.troubles.clear_continuation(one.member)
        log.warning(
            "continuation.finished",
            verb=one.verb,
            execution_id=one.execution_id,
            node_id=one.node_id,
        )

    async def _set_aside(self, one: Continuation, case: _Case, now_s: float, reason: str) -> None:
        case.failures += 1
        again_s = backoff_s(case.failures)
        case.retry_at_s = now_s + again_s
        log.error(
            "continuation.failed",
            verb=one.verb,
            execution_id=one.execution_id,
            node_id=one.node_id,
            reason=reason,
            retry_in_s=again_s,
        )
        await self._store.executions.postpone_continuation(one.member)
        await self._store.health.troubles.report_continuation(one.member, reason)
