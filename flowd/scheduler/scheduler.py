"""The healer and the clock: what no worker can do for itself, in a bounded slice each tick.

It is not the pump: nodes move without it. Any number of schedulers may run, on any hosts; every
action is safe to do twice.
"""

from __future__ import annotations

import asyncio
import contextlib
import signal
import time
from typing import Final

import uvloop

from flowd.config import Settings
from flowd.errors import StoreError
from flowd.log import get_logger
from flowd.orchestrator.plans import Plans
from flowd.outgoing.secrets import Secrets
from flowd.pulse import Pulse
from flowd.scheduler.continuations import FinishContinuations
from flowd.scheduler.duty import Duty
from flowd.scheduler.lost_workers import RecoverExpired, RecoverGone
from flowd.scheduler.reconciler import Reconciler
from flowd.scheduler.repairs import NoticeLoss, Readmit, SetDamageAside
from flowd.scheduler.retention import ForgetFinished
from flowd.scheduler.retries import DispatchRetries
from flowd.scheduler.sign_of_life import SignOfLife
from flowd.scheduler.webhooks import Deliverer
from flowd.store import Store, open_store

log = get_logger(__name__)

# A tick that is later than this has no answer from Redis.
ANSWER_GRACE_S: Final = 1.0


def serve(settings: Settings, pulse: Pulse) -> None:
    """Run a scheduler until SIGTERM or SIGINT; it is ready once Redis has answered."""
    uvloop.run(_serve(settings, pulse))


async def _serve(settings: Settings, pulse: Pulse) -> None:
    stop = asyncio.Event()
    is_ready = False
    loop = asyncio.get_running_loop()
    pulse.beat_on(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = open_store(settings)
    scheduler = Scheduler(store, settings.retention.finished_days, settings.scheduler.interval_s)
    stopping = asyncio.create_task(stop.wait())
    deliverer = Deliverer(store, settings.callbacks.allow, Secrets(settings).resolve_written)
    deliverer.start(on_end=stop.set)
    try:
        while not stop.is_set():
            if await scheduler.tick(time.monotonic()):
                pulse.expect_answer(2 * settings.scheduler.interval_s + ANSWER_GRACE_S)
                if not is_ready:
                    is_ready = True
                    pulse.ready()
            await _rest(stopping, scheduler, settings.scheduler.interval_s)
    finally:
        stopping.cancel()
        await deliverer.stop()
        await store.close()


async def _rest(stopping: asyncio.Task[bool], scheduler: Scheduler, interval_s: float) -> None:
    """Until the next tick is due, a node is to run again, or the end."""
    waiting = asyncio.create_task(scheduler.wait(interval_s))
    await asyncio.wait((stopping, waiting), return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)


class Scheduler:
    """One tick at a time; what it remembers between ticks is only what it has observed."""

    def __init__(self, store: Store, finished_days: float = 0, interval_s: float = 0) -> None:
        self._store = store
        plans = Plans(store)
        reconciler = Reconciler(store, plans)
        readmit = Readmit(store, reconciler)
        self._retries = DispatchRetries(store)
        self._duties: tuple[Duty, ...] = (
            SetDamageAside(store, interval_s, readmit),
            self._retries,
            NoticeLoss(store, interval_s, readmit),
            RecoverExpired(store, plans, interval_s),
            RecoverGone(store, plans, interval_s),
            FinishContinuations(store, plans, interval_s),
            readmit,
            reconciler,
            ForgetFinished(store, interval_s, finished_days),
            SignOfLife(store, interval_s),
        )
        self._is_redis_away = False

    async def wait(self, interval_s: float) -> None:
        """Sleep until there may be something to do, `interval_s` at most."""
        if self._is_redis_away:
            await asyncio.sleep(interval_s)
            return
        with contextlib.suppress(StoreError):
            await self._store.retries.wait_for_change(
                min(interval_s, self._retries.next_in_s or interval_s)
            )

    async def tick(self, now_s: float) -> bool:
        """Do what is due; False when Redis did not let it. `now_s` is monotonic."""
        try:
            for duty in self._duties:
                await duty.run_if_due(now_s)
        except StoreError as error:
            for duty in self._duties:
                duty.pause()
            if not self._is_redis_away:
                log.error("redis.lost", reason=str(error))
            self._is_redis_away = True
            return False
        if self._is_redis_away:
            log.warning("redis.found")
        self._is_redis_away = False
        return True
