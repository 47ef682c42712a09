"""A worker process: one shift after another, each under a lease of its own."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures.thread import _threads_queues
from dataclasses import replace
from functools import partial
from typing import Final, TextIO, cast

import uvloop

from flowd.backoff import growing_pauses
from flowd.config import Settings
from flowd.errors import HandlerFailed, StoreError
from flowd.handlers.context import Resources
from flowd.handlers.registry import Registry
from flowd.log import get_logger, listen_to_nodes
from flowd.node_log import SpokenStream
from flowd.orchestrator.children import Children
from flowd.orchestrator.enrolment import differing, enrolled
from flowd.orchestrator.owner import Owner
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import ensure_groups, recover_worker
from flowd.pulse import Pulse
from flowd.store import Store, open_store
from flowd.store.executions import now_ms
from flowd.workers.lease import Lease
from flowd.workers.node_logs import NodeLogs
from flowd.workers.shift import Equipment, Shift
from flowd.workers.tally import Tally

log = get_logger(__name__)

# An idle worker asks every few seconds, and waits for an answer as long again.
STALLED_AFTER_S: Final = 15.0
# Part of the grace period a drain waits for handlers; the rest is for returning what is left.
DRAIN_SHARE: Final = 0.8


# A process that a handler forks in a thread has none of the pool's threads, waited for them at its
# end all the same, and gave 1 as its exit code: CPython issue 88110, which later versions mend so.
os.register_at_fork(after_in_child=_threads_queues.clear)  # type: ignore[attr-defined]


def serve(settings: Settings, name: str, registry: Registry, pulse: Pulse) -> None:
    """Run a worker until SIGTERM or SIGINT, then drain; it is ready once it has its lease."""
    listen_to_nodes()
    sys.stdout = cast(TextIO, SpokenStream(sys.stdout, "stdout"))
    sys.stderr = cast(TextIO, SpokenStream(sys.stderr, "stderr"))
    uvloop.run(_serve(settings, name, registry, pulse))


async def _serve(settings: Settings, name: str, registry: Registry, pulse: Pulse) -> None:
    worker = Worker(settings, name, open_store(settings), registry, pulse)
    loop = asyncio.get_running_loop()
    pulse.beat_on(loop)
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, worker.stop)
    await worker.run()


class Worker:
    """A worker that loses its lease lets go of everything and begins a new shift as a stranger."""

    def __init__(
        self, settings: Settings, name: str, store: Store, registry: Registry, pulse: Pulse
    ) -> None:
        self._name = name
        self._pulse = pulse
        self._store = store
        self._plans = Plans(store)
        logs = NodeLogs(settings.logs.node_max_kb * 1024)
        self._resources = Resources(
            store.budgets, store.executions, store.nodes.maps, Children(store, self._plans), logs
        )
        self._threads = ThreadPoolExecutor(settings.workers.concurrency, thread_name_prefix=name)
        self._tally = Tally()
        self._equipment = Equipment(
            settings,
            store,
            self._plans,
            registry,
            self._resources,
            self._threads,
            pulse,
            self._tally,
            logs,
        )
        self._drain_s = DRAIN_SHARE * settings.shutdown.grace_s
        self._owner = replace(
            Owner.of_this_process(settings.workers.queues),
            handlers=registry.names(),
            parent_pid=os.getppid(),
            since_ms=now_ms(),
        )
        self._stop = asyncio.Event()
        self._shift: Shift | None = None
        self._is_stalled = False
        self._warming: asyncio.Task[None] | None = None

    def stop(self) -> None:
        """Begin to drain: take nothing new, end what runs."""
        self._stop.set()
        if self._shift is not None:
            self._shift.drain(self._limit_s())

    def _limit_s(self) -> float | None:
        """How long what runs may take to its end; None is as long as it takes."""
        return None if self._pulse.is_patient else self._drain_s

    async def run(self) -> None:
        """Work until stopped and drained; it is ready at the first lease."""
        shifts = 0
        while not self._stop.is_set():
            shifts += 1
            consumer = self._owner.consumer(self._name, shifts)
            if await self._enroll(consumer):
                if shifts == 1:
                    self._pulse.ready()
                    self._warming = asyncio.create_task(self._warm_up())
                await self._work(consumer)
        await self._flush_tally()
        self._threads.shutdown(wait=False, cancel_futures=True)
        await self._resources.close()
        await self._store.close()

    async def _warm_up(self) -> None:
        """Where own handlers run in processes, the first call of one waits for no imports."""
        if self._equipment.registry.has_loaded("process"):
            # What is wrong with them the call says.
            with contextlib.suppress(HandlerFailed):
                await self._resources.isolated(self._equipment.settings).ready()

    async def _enroll(self, consumer: str) -> bool:
        """Wait for Redis and take a lease; False when stopped meanwhile."""
        is_lost = False
        for pause_s in growing_pauses():
            try:
                await ensure_groups(self._store, self._plans, self._owner.queues)
                await self._store.tasks.enroll_worker(consumer, self._owner.to_json())
            except StoreError as error:
                if not is_lost:
                    log.error("redis.lost", reason=str(error))
                is_lost = True
            else:
                if is_lost:
                    log.warning("redis.reconnected")
                log.info("worker.enrolled", consumer=consumer)
                await self._warn_of_others()
                return True
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(pause_s):
                    await self._stop.wait()
                return False
        return False

    async def _warn_of_others(self) -> None:
        with contextlib.suppress(StoreError):
            for reason in differing(self._owner, await enrolled(self._store)):
                log.warning("handlers.differ", reason=reason)

    async def _work(self, consumer: str) -> None:
        """One shift: until drained, or until the lease is lost."""
        right = Lease(self._store.tasks, consumer, partial(self._report, consumer))
        shift = self._shift = Shift(self._equipment, consumer, on_stale=right.doubt)
        if self._stop.is_set():
            # The signal came while the lease was taken, when there was no shift to be told.
            shift.drain(self._limit_s())
        lease = asyncio.create_task(right.keep())
        work = asyncio.create_task(shift.work())
        await asyncio.wait((lease, work), return_when=asyncio.FIRST_COMPLETED)
        is_lost = not work.done()
        if is_lost:
            log.error("lease.lost", consumer=consumer, reason=str(lease.exception()))
        self._shift = None
        for task in (lease, work):
            task.cancel()
        await asyncio.gather(lease, work, return_exceptions=True)
        is_stuck = await shift.close()
        if is_lost and is_stuck:
            self._end_process("a handler does not end, and the lease is lost", os.EX_TEMPFAIL)
        if not is_lost:
            work.result()
        await self._return_entries(consumer)
        if is_stuck:
            self._end_process("a handler does not end within the grace period", os.EX_OK)

    async def _flush_tally(self) -> None:
        has_room = await self._tally.flush(self._store.health.metrics)
        if self._shift is not None:
            self._shift.note_room(is_full=not has_room)

    async def _report(self, consumer: str) -> None:
        """After each renewal of the lease, and so also where the shift stands still."""
        await self._flush_tally()
        for_s = 0.0 if self._shift is None else self._shift.stalled_s()
        is_stalled = for_s >= STALLED_AFTER_S
        self._pulse.note_stalled(for_s if is_stalled else 0.0)
        self._is_stalled = self._is_stalled or is_stalled
        with contextlib.suppress(StoreError):
            if is_stalled:
                reason = f"has room and has asked for no work for {for_s:.0f} s"
                log.error("worker.stalled", consumer=consumer, reason=reason)
                await self._store.health.troubles.report_worker(consumer, reason)
            elif self._is_stalled:
                await self._store.health.troubles.clear_worker(consumer)
                # Not before it was heard: what is shown would stand for ever.
                self._is_stalled = False

    def _end_process(self, reason: str, exit_code: int) -> None:
        """A handler that does not end: the process has to take it along."""
        log.error("worker.ended", worker=self._name, reason=reason)
        os._exit(exit_code)

    async def _return_entries(self, consumer: str) -> None:
        """Hand back what the shift still holds, uncounted: nobody died."""
        for pause_s in growing_pauses():
            try:
                cause = f"{consumer} gave it back"
                await recover_worker(self._store, self._plans, consumer, cause, is_blamed=False)
                return
            except StoreError as error:
                if self._stop.is_set():
                    log.error("worker.abandoned", consumer=consumer, reason=str(error))
                    return
            await asyncio.sleep(pause_s)
