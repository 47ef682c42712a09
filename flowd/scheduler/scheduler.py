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
from flowd.orchestrator.leases import LEASE_S, LeaseWatch
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import (
    ensure_group,
    finish_continuations,
    local_owners,
    recover_worker,
)
from flowd.outgoing.secrets import Secrets
from flowd.pulse import Pulse
from flowd.scheduler.reconciler import Reconciler
from flowd.scheduler.retention import forget_finished
from flowd.scheduler.webhooks import Deliverer
from flowd.store import Store, open_store
from flowd.store.executions import now_ms
from flowd.store.redis.client import MissingGroup

log = get_logger(__name__)

RECONCILE_EVERY_S: Final = 60.0
EXECUTIONS_PER_TICK: Final = 1_000
# A tick that is later than this has no answer from Redis.
ANSWER_GRACE_S: Final = 1.0
# Less than this a slow answer may seem to be.
CLOCK_JUMP_MS: Final = 2_000


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
        self._finished_days = finished_days
        self._interval_s = interval_s
        self._plans = Plans(store)
        self._leases = LeaseWatch()
        self._reconciler = Reconciler(store, self._plans)
        self._reconcile_at_s = 0.0
        self._readmit_at_s = 0.0
        self._readmit_cursor = "0"
        self._set_aside_at_s = 0.0
        self._has_group = False
        self._entries_added = 0
        self._is_redis_away = False
        self._gone: set[str] = set()
        self._heal_at_s = 0.0
        self._retry_in_s: float | None = None
        # Both at the last look: the server's wall clock, ms, and our monotonic one.
        self._server_clock: tuple[int, float] | None = None

    async def wait(self, interval_s: float) -> None:
        """Sleep until there may be something to do, `interval_s` at most."""
        if self._is_redis_away:
            await asyncio.sleep(interval_s)
            return
        with contextlib.suppress(StoreError):
            await self._store.retries.wait_for_change(
                min(interval_s, self._retry_in_s or interval_s)
            )

    async def tick(self, now_s: float) -> bool:
        """Heal what is due; False when Redis did not let it. `now_s` is monotonic."""
        try:
            await self._set_damage_aside(now_s)
            await self._dispatch_retries(now_s)
            await self._heal(now_s)
        except StoreError as error:
            self._leases.pause()
            if not self._is_redis_away:
                log.error("redis.lost", reason=str(error))
            self._is_redis_away = True
            return False
        if self._is_redis_away:
            log.warning("redis.found")
        self._is_redis_away = False
        return True

    async def _set_damage_aside(self, now_s: float) -> None:
        """First of all: whatever comes behind it may need the key. What was in it is found anew,
        as far as the keys of the executions say it."""
        if now_s < self._set_aside_at_s:
            return
        self._set_aside_at_s = now_s + 0.9 * self._interval_s
        for key in await self._store.tasks.set_aside():
            log.error("key.set_aside", key=key)
            self._readmit_at_s = 0.0
            self._reconcile_anew()

    async def _dispatch_retries(self, now_s: float) -> None:
        """Also after the server's clock was put back: nobody waits for it to catch up."""
        found = await self._store.retries.dispatch()
        if self._server_clock is not None:
            then_ms, then_s = self._server_clock
            put_back_ms = round(then_ms + 1000 * (now_s - then_s)) - found.now_ms
            if put_back_ms > CLOCK_JUMP_MS:
                log.warning("clock.put_back", by_s=round(put_back_ms / 1000))
                await self._store.retries.hasten(put_back_ms)
                found = await self._store.retries.dispatch()
        self._server_clock = (found.now_ms, now_s)
        self._retry_in_s = found.next_in_s

    async def _heal(self, now_s: float) -> None:
        """At most once in an interval, however often retries are due."""
        if now_s < self._heal_at_s:
            return
        self._heal_at_s = now_s + 0.9 * self._interval_s
        await self._notice_loss()
        try:
            await self._recover_expired(now_s)
            self._has_group = True
        except MissingGroup:
            await ensure_group(self._store, self._plans, was_there=self._has_group)
        await self._recover_gone()
        await finish_continuations(self._store, self._plans)
        await self._readmit(now_s)
        await self._reconcile(now_s)
        await forget_finished(self._store, self._finished_days, now_ms())
        await self._store.metrics.beat()

    async def _notice_loss(self) -> None:
        """A stream has had ever more entries, as long as it is the same and has all its past."""
        known, self._entries_added = self._entries_added, await self._store.tasks.entries_added()
        if self._entries_added < known:
            log.error("redis.emptied", entries_before=known, entries=self._entries_added)
            self._readmit_at_s = 0.0
            self._reconcile_anew()

    async def _recover_expired(self, now_s: float) -> None:
        for consumer in self._leases.expired(await self._store.tasks.leases(), now_s):
            cause = f"{consumer} has not renewed its lease for {LEASE_S:.0f} s"
            await recover_worker(self._store, self._plans, consumer, cause, is_blamed=True)

    async def _recover_gone(self) -> None:
        """What died on this machine with nobody to tell: a killed supervisor took it along.

        At the second sight only, so that a supervisor that lives can say first how it died.
        """
        gone = {
            consumer: owner
            for consumer, owner in await local_owners(self._store)
            if owner.is_gone()
        }
        for consumer in self._gone & gone.keys():
            cause = f"{consumer} (pid {gone[consumer].pid}) died"
            await recover_worker(self._store, self._plans, consumer, cause, is_blamed=True)
        self._gone = set(gone)

    async def _reconcile(self, now_s: float) -> None:
        """A round at start and every minute, and one right behind it when it suspects something."""
        if now_s < self._reconcile_at_s:
            return
        if await self._reconciler.run_slice():
            self._reconcile_at_s = now_s + RECONCILE_EVERY_S

    def _reconcile_anew(self) -> None:
        """Two rounds from now on: one that was under way as the second would leave out the first,
        and what it suspects would wait for a minute."""
        self._reconciler = Reconciler(self._store, self._plans)
        self._reconcile_at_s = 0.0

    async def _readmit(self, now_s: float) -> None:
        """Every minute, in slices, find the executions that run and are not among the active."""
        if now_s < self._readmit_at_s:
            return
        self._readmit_cursor, found = await self._store.executions.readmit_slice(
            self._readmit_cursor, EXECUTIONS_PER_TICK
        )
        for execution_id in found:
            log.warning("execution.readmitted", execution_id=execution_id)
            self._reconcile_anew()
        if self._readmit_cursor == "0":
            self._readmit_at_s = now_s + RECONCILE_EVERY_S
