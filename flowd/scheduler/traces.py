"""Export a trace of each execution that has ended, as fast as a collector takes them.

Nothing waits for it: what has ended stays in the list of the ended, and one position says how far
the export has come. While a collector is away that waits; what is older than `BACKLOG_MS` then is
given up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final, NamedTuple, Protocol

from flowd.errors import CorruptExecution, StoreError, UnknownExecution
from flowd.log import get_logger
from flowd.orchestrator.plans import Plans
from flowd.scheduler.duty import REDIS_AWAY, Duty, DutyFailed
from flowd.scheduler.lane import Lane
from flowd.scheduler.spans import Span, execution_span, node_spans
from flowd.store import Store
from flowd.store.executions import now_ms
from flowd.store.traces import TracePosition

log = get_logger(__name__)

LOOK_EVERY_S: Final = 1.0
# The clocks of machines may differ by so much: who ended before is in the list by then.
SETTLED_MS: Final = 5_000
BACKLOG_MS: Final = 3_600_000
LEASE_MS: Final = 30_000
SPANS_PER_CALL: Final = 512
EXECUTIONS_PER_LOOK: Final = 200
# Of one run; what is left is for the next.
BUDGET_S: Final = 2.0


class SpansRefused(DutyFailed):
    """The collector will not take these spans another time either."""


class SpanSender(Protocol):
    async def send(self, spans: Sequence[Span]) -> None:
        """Raises DutyFailed, or SpansRefused."""

    def close(self) -> None: ...


class Batch(NamedTuple):
    """`position` is behind the last execution that is whole with it; None before one is."""

    spans: list[Span]
    position: TracePosition | None


class ExportTraces(Duty):
    """One scheduler at a time exports; another takes over where it has died."""

    name = "traces"
    every_s = LOOK_EVERY_S

    def __init__(self, store: Store, sender: SpanSender) -> None:
        self._store = store
        self._traces = store.finished.traces
        self._plans = Plans(store)
        self._sender = sender
        self._owner = f"{os.getpid()} {secrets.token_hex(8)}"
        self._batches: AsyncIterator[Batch] | None = None
        self._unsent: Batch | None = None

    async def run(self, _now_s: float) -> float | None:
        end_s = time.monotonic() + BUDGET_S
        while time.monotonic() < end_s:
            if not await self._traces.claim(self._owner, LEASE_MS):
                self.pause()
                return None
            batch = await self._next()
            if batch is None:
                return None
            await self._send(batch)
        return 0.0

    def pause(self) -> None:
        """Begin anew at the position that is stored."""
        self._batches = self._unsent = None

    async def release(self) -> None:
        """Leave it to another scheduler, that has not to wait for it."""
        await self._traces.release(self._owner)

    async def _next(self) -> Batch | None:
        """What was not taken last time, or the next; None when there is no more for now."""
        if self._unsent is None:
            is_new = self._batches is None
            self._batches = self._batches or self._walk()
            try:
                self._unsent = await anext(self._batches, None)
            except BaseException:
                self.pause()
                raise
            if self._unsent is None:
                self._batches = None
                return None if is_new else await self._next()
        return self._unsent

    async def _send(self, batch: Batch) -> None:
        what = "exported"
        try:
            if batch.spans:
                await self._sender.send(batch.spans)
        except DutyFailed as error:
            await self._traces.count("failed", 1)
            if not isinstance(error, SpansRefused):
                await self._give_up_old()
                raise
            what = "dropped"
            log.error("traces.dropped", spans=len(batch.spans), reason=str(error))
        self._unsent = None
        await self._traces.count(what, len(batch.spans))
        if batch.position is not None:
            await self._traces.note(batch.position)

    async def _give_up_old(self) -> None:
        """Go on behind what waits for longer than anybody wants to wait for it."""
        at_ms = now_ms()
        position = await self._traces.position(at_ms)
        oldest = TracePosition(at_ms - BACKLOG_MS, "")
        if position < oldest and await self._traces.ended(position, oldest.finished_ms, 1):
            await self._traces.note(oldest)
            log.error("traces.given_up", until_ms=oldest.finished_ms)
            self.pause()

    async def _walk(self) -> AsyncIterator[Batch]:
        """The next of those that have ended, as far as one look goes."""
        at_ms = now_ms() - SETTLED_MS
        position = await self._traces.position(at_ms)
        ended = await self._traces.ended(position, at_ms, EXECUTIONS_PER_LOOK)
        spans: list[Span] = []
        done: TracePosition | None = None
        for one in ended:
            async for some in self._spans(one.execution_id):
                spans += some
                while len(spans) >= SPANS_PER_CALL:
                    yield Batch(spans[:SPANS_PER_CALL], done)
                    spans = spans[SPANS_PER_CALL:]
            done = one
        if done is not None:
            yield Batch(spans, done)

    async def _spans(self, execution_id: str) -> AsyncIterator[list[Span]]:
        """None of one that is deleted meanwhile, or damaged."""
        execution = await self._traces.execution(execution_id)
        if execution is None:
            return
        top = execution_span(execution)
        yield [top]
        with contextlib.suppress(UnknownExecution, CorruptExecution):
            plan = await self._plans.load(execution_id, execution.plan)
            async for some in self._traces.nodes(execution_id):
                yield [span for one in some for span in node_spans(execution, top, one, plan)]


class TraceExport:
    """`start` beside the scheduler's lanes: a collector that hangs must not delay them."""

    def __init__(self, store: Store, sender: SpanSender) -> None:
        self._duty = ExportTraces(store, sender)
        self._lane = Lane(store, (self._duty,))
        self._sender = sender
        self._running: asyncio.Task[None] | None = None

    def start(self, on_end: Callable[[], None]) -> None:
        """`on_end` is called when it cannot go on, which is a defect; `stop` raises what it was."""
        self._running = asyncio.create_task(self._run())
        self._running.add_done_callback(lambda _: on_end())

    async def stop(self) -> None:
        """Break off what is under way: it is exported again, by any scheduler."""
        self._sender.close()
        if self._running is not None:
            self._running.cancel()
            (end,) = await asyncio.gather(self._running, return_exceptions=True)
            with contextlib.suppress(StoreError):
                await self._duty.release()
            if isinstance(end, Exception):
                raise end

    async def _run(self) -> None:
        while True:
            # That Redis is away, the scheduler says in the log.
            with contextlib.suppress(*REDIS_AWAY):
                await self._lane.tick(time.monotonic())
            await asyncio.sleep(LOOK_EVERY_S)
