"""The healer and the clock: what no worker can do for itself, in a bounded slice each tick.

It is not the pump: nodes move without it. Any number of schedulers may run, on any hosts; every
action is safe to do twice.
"""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Callable, Iterator
from typing import Final

import uvloop

from flowd.config import Settings
from flowd.errors import StoreError
from flowd.log import get_logger
from flowd.orchestrator.input_fit import InputFit
from flowd.orchestrator.plans import Plans
from flowd.outgoing.secrets import Secrets
from flowd.pulse import Pulse
from flowd.scheduler.cache import TrimCache
from flowd.scheduler.clock import KeepClock
from flowd.scheduler.continuations import FinishContinuations
from flowd.scheduler.duty import REDIS_AWAY
from flowd.scheduler.hours import NoteHours
from flowd.scheduler.lane import Lane
from flowd.scheduler.limits import CheckLimits
from flowd.scheduler.lost_workers import RecoverExpired, RecoverGone
from flowd.scheduler.places import SettlePlaces
from flowd.scheduler.queues import PruneQueues
from flowd.scheduler.reconciler import Reconciler
from flowd.scheduler.repairs import NoticeLoss, Readmit, SetDamageAside
from flowd.scheduler.retention import ForgetFinished
from flowd.scheduler.retries import DispatchRetries
from flowd.scheduler.room import NoteRoom
from flowd.scheduler.schedules import FireSchedules, ReadmitSchedules
from flowd.scheduler.sign_of_life import SignOfLife
from flowd.scheduler.traces import SpanSender, TraceExport
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
    loop = asyncio.get_running_loop()
    pulse.beat_on(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    store = open_store(settings)
    input_fit = InputFit(settings)
    scheduler = Scheduler(
        store, settings.retention.finished_days, settings.scheduler.interval_s, input_fit
    )
    deliverer = Deliverer(store, settings.callbacks.allow, Secrets(settings).resolve_written)
    exports = [TraceExport(store, one) for one in _senders(settings)]
    deliverer.start(on_end=stop.set)
    for export in exports:
        export.start(on_end=stop.set)
    scheduler.start(pulse, on_end=stop.set)
    try:
        await stop.wait()
    finally:
        await deliverer.stop()
        for export in exports:
            await export.stop()
        await scheduler.stop()
        await input_fit.close()
        await store.close()


def _senders(settings: Settings) -> Iterator[SpanSender]:
    """To the collector, where one is named."""
    if settings.telemetry.otlp_endpoint is not None:
        from flowd.scheduler.otlp import Sender

        yield Sender(settings.telemetry.otlp_endpoint)


class Scheduler:
    """Two lanes of duties: what is due by the clock never waits for what heals.

    What it remembers between ticks is only what it has observed.
    """

    def __init__(
        self,
        store: Store,
        finished_days: float = 0,
        interval_s: float = 0,
        input_fit: InputFit | None = None,
    ) -> None:
        self._store = store
        self._interval_s = interval_s
        plans = Plans(store)
        reconciler = Reconciler(store, plans)
        readmit = Readmit(store, reconciler)
        self._retries = DispatchRetries(store)
        self._schedules = FireSchedules(store, plans, input_fit)
        self._clock = Lane(
            store,
            (
                KeepClock(store, interval_s),
                self._retries,
                self._schedules,
                SignOfLife(store, interval_s),
            ),
        )
        self._healing = Lane(
            store,
            (
                SetDamageAside(store, interval_s, readmit),
                NoticeLoss(store, interval_s, readmit),
                RecoverExpired(store, plans, interval_s),
                RecoverGone(store, plans, interval_s),
                FinishContinuations(store, plans, interval_s),
                readmit,
                reconciler,
                CheckLimits(store),
                ReadmitSchedules(store),
                SettlePlaces(store),
                ForgetFinished(store, interval_s, finished_days),
                TrimCache(store),
                PruneQueues(store),
                NoteHours(store, interval_s),
                NoteRoom(store),
            ),
        )
        # The lanes that Redis did not answer at their last tick.
        self._away: set[Lane] = set()
        self._unready = {self._clock, self._healing}
        self._tasks: list[asyncio.Task[None]] = []

    def start(self, pulse: Pulse, on_end: Callable[[], None]) -> None:
        """Tick until `stop`, ready once both lanes have. `on_end` is called when it cannot go on,
        which is a defect; `stop` raises what it was."""
        self._tasks = [
            asyncio.create_task(self._keep_time(pulse)),
            asyncio.create_task(self._heal(pulse)),
        ]
        for task in self._tasks:
            task.add_done_callback(lambda _: on_end())

    async def stop(self) -> None:
        """Break off what is under way: any scheduler carries on with it."""
        for task in self._tasks:
            task.cancel()
        for end in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(end, Exception):
                raise end

    async def tick(self, now_s: float) -> bool:
        """Do what is due; False when Redis did not let it. `now_s` is monotonic."""
        is_answered = await self._tick(self._clock, now_s)
        return await self._tick(self._healing, now_s) and is_answered

    async def _keep_time(self, pulse: Pulse) -> None:
        while True:
            if await self._tick(self._clock, time.monotonic()) and not self._away:
                pulse.expect_answer(2 * self._interval_s + ANSWER_GRACE_S)
                self._note_ready(pulse, self._clock)
            await self._wait()

    async def _heal(self, pulse: Pulse) -> None:
        while True:
            if await self._tick(self._healing, time.monotonic()):
                self._note_ready(pulse, self._healing)
            await asyncio.sleep(self._interval_s)

    def _note_ready(self, pulse: Pulse, lane: Lane) -> None:
        if lane in self._unready:
            self._unready.discard(lane)
            if not self._unready:
                pulse.ready()

    async def _tick(self, lane: Lane, now_s: float) -> bool:
        try:
            is_answered = await lane.tick(now_s)
        except REDIS_AWAY as error:
            for one in (self._clock, self._healing):
                one.pause()
            if not self._away:
                log.error("redis.lost", reason=str(error))
            self._away.add(lane)
            return False
        if self._away:
            self._away.discard(lane)
            if not self._away:
                log.warning("redis.reconnected")
        return is_answered

    async def _wait(self) -> None:
        """Sleep until a node is to run again, or a schedule is due; an interval at most."""
        known = (self._retries.next_in_s, self._schedules.next_in_s)
        wait_s = min((one for one in known if one is not None), default=self._interval_s)
        wait_s = min(wait_s, self._interval_s)
        try:
            if not self._away:
                await self._store.retries.wait_for_change(wait_s)
                return
        except StoreError:
            # The next tick says what is wrong.
            pass
        await asyncio.sleep(self._interval_s)
