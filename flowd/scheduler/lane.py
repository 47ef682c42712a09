"""Run what is due together, and let no duty that fails or does not end stop the others."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Sequence
from typing import Final

from flowd.errors import StoreError
from flowd.log import get_logger
from flowd.scheduler.duty import REDIS_AWAY, Duty, DutyFailed, backoff_s
from flowd.store import Store

log = get_logger(__name__)

# The others wait so long for one that runs; then it goes on beside them.
PATIENCE_S: Final = 1.0
# More than Redis has for one reply, so that a server that hangs is not taken for a duty that does.
OVERRUN_S: Final = 15.0
_SAYS_ALL: Final = (StoreError, DutyFailed)


class Lane:
    """Duties that are looked at together. Two lanes wait for each other in nothing.

    What is due at a tick is begun in its order and runs side by side: their calls go to Redis in
    one write, and where nothing is to do, that is most of what a scheduler costs.
    """

    def __init__(self, store: Store, duties: Sequence[Duty]) -> None:
        self._store = store
        self._duties = duties
        self._running: dict[Duty, asyncio.Task[None]] = {}
        self._failures: dict[Duty, int] = {}
        self._answered = 0

    async def tick(self, now_s: float) -> bool:
        """Run what is due, and what that hurries; False where all it has is waiting for an answer.
        Raises one of REDIS_AWAY."""
        self._answered = 0
        rested = list(self._duties)
        try:
            while due := self._find_due(rested, now_s):
                for duty in due:
                    rested.remove(duty)
                    self._running[duty] = asyncio.create_task(self._run(duty, now_s))
                begun = [self._running[duty] for duty in due]
                await asyncio.wait(begun, timeout=PATIENCE_S)
        except asyncio.CancelledError:
            for task in self._running.values():
                task.cancel()
            raise
        return self._answered > 0 or not self._running

    def _find_due(self, rested: Sequence[Duty], now_s: float) -> list[Duty]:
        self._let_go()
        return [one for one in rested if one not in self._running and now_s >= one.due_at_s]

    def pause(self) -> None:
        for duty in self._duties:
            duty.pause()

    def _let_go(self) -> None:
        """Of those that have ended; raises what one of them could not go on from."""
        ended = [duty for duty, task in self._running.items() if task.done()]
        ends = [self._running.pop(duty).exception() for duty in ended]
        for error in ends:
            if error is not None:
                raise error

    async def _run(self, duty: Duty, now_s: float) -> None:
        duty.due_at_s = now_s
        again_s: float | None = None
        began_s = time.monotonic()
        try:
            async with asyncio.timeout(OVERRUN_S) as limit:
                again_s = await duty.run(now_s)
        except REDIS_AWAY:
            raise
        except Exception as error:  # noqa: BLE001 - a defect of one duty is not to end all of them
            is_overrun = isinstance(error, TimeoutError) and limit.expired()
            reason = f"it did not end within {OVERRUN_S:g} s" if is_overrun else _reason(error)
            failures = self._failures[duty] = self._failures.get(duty, 0) + 1
            # What is damaged in Redis is mended at the next tick, and then it has to go on.
            again_s = 0.0 if isinstance(error, StoreError) else backoff_s(failures)
            await self._note_failure(duty, reason, error)
        else:
            self._answered += 1
            await self._note_success(duty)
        # Unless it was hurried meanwhile.
        if duty.due_at_s == now_s:
            late_s = time.monotonic() - began_s
            duty.due_at_s = now_s + late_s + (duty.every_s if again_s is None else again_s)

    async def _note_failure(self, duty: Duty, reason: str, error: Exception) -> None:
        """Say it where people look; in the log the more seldom, the longer it lasts."""
        failures = self._failures[duty]
        if failures & (failures - 1) == 0:
            facts = {} if isinstance(error, (*_SAYS_ALL, TimeoutError)) else {"error": error}
            log.error("duty.failed", duty=duty.name, reason=reason, failures=failures, **facts)
        with contextlib.suppress(StoreError):
            await self._store.health.troubles.report_duty(duty.name, reason)

    async def _note_success(self, duty: Duty) -> None:
        """The first one may mend what another scheduler has reported, and did not live to mend."""
        if self._failures.get(duty) == 0:
            return
        with contextlib.suppress(StoreError):
            await self._store.health.troubles.clear_duty(duty.name)
            self._failures[duty] = 0


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, _SAYS_ALL) else f"{type(error).__name__}: {error}"
