"""The handler calls of one worker: each takes a slot, and ends as a completion or a failure."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from concurrent.futures import Executor, Future
from typing import Any, Final

from flowd.config import Settings
from flowd.errors import HandlerFailed
from flowd.handlers.context import HandlerContext, Resources
from flowd.handlers.outcome import as_failure
from flowd.node_log import SPEAKER
from flowd.outgoing.secrets import Secrets
from flowd.pulse import Pulse
from flowd.redaction import REDACTOR
from flowd.store.attempt_records import attempt_record
from flowd.store.endings import Ending, traceback_of
from flowd.store.executions import now_ms
from flowd.store.tasks import DEATHS_BEFORE_APART, Claim
from flowd.workers.node_run import PreparedNode, complete_node, fail_node, output_text
from flowd.workers.watched_call import watched
from flowd.workflow.ids import STEPS

# A node that ends sooner is never seen RUNNING, and saves the call that would have said so.
CLAIM_AFTER_S: Final = 0.002
# What runs on is claimed again this often, which is how a worker hears that it was cancelled.
CLAIM_AGAIN_S: Final = 1.0
# A handler that nobody waits for any more may end by itself this long.
GRACE_S: Final = 2.0


class _Run:
    """A handler call that did not end at once. `since_s` is monotonic: its begin, or heartbeat."""

    __slots__ = (
        "context",
        "is_claimed",
        "on_claimed",
        "prepared",
        "since_s",
        "started_ms",
        "task",
        "thread",
        "timer",
    )

    def __init__(self, prepared: PreparedNode, context: HandlerContext) -> None:
        self.prepared = prepared
        self.context = context
        self.started_ms = now_ms()
        self.since_s = time.monotonic()
        # Steps of the engine end soon, or wait: those are claimed that take longer than a second.
        self.is_claimed = prepared.node.handler in STEPS
        # Where a handler waits until its start is recorded.
        self.on_claimed: asyncio.Future[None] | None = None
        self.thread: Future[Any] | None = None
        self.task: asyncio.Task[None] | None = None
        self.timer: asyncio.TimerHandle | None = None


class Slots:
    """`on_end` hears of every ending, `on_claim_due` when there are starts to be recorded, and
    `on_room` when a thread has ended that nobody waited for any more."""

    def __init__(
        self,
        settings: Settings,
        resources: Resources,
        threads: Executor,
        consumer: str,
        pulse: Pulse,
        *,
        on_end: Callable[[Ending], None],
        on_claim_due: Callable[[], None],
        on_room: Callable[[], None] = lambda: None,
    ) -> None:
        self._settings = settings
        self._secrets = Secrets(settings)
        self._resources = resources
        self._threads = threads
        self._consumer = consumer
        self._on_end = on_end
        self._on_claim_due = on_claim_due
        self._on_room = on_room
        self._pulse = pulse
        self._let_go: list[Future[Any] | asyncio.Task[None]] = []
        self._loop = asyncio.get_running_loop()
        self._runs: dict[str, _Run] = {}
        self._redacting = asyncio.Semaphore(1)
        self._is_claim_timer_set = False
        self._is_again_timer_set = False

    def __len__(self) -> int:
        return len(self._runs)

    @property
    def taken(self) -> int:
        """How many slots are not free: threads that run on past their time keep theirs, or others
        would wait for a thread while their time passes."""
        if not self._let_go:
            return len(self._runs)
        lingering = (isinstance(one, Future) and not one.done() for one in self._let_go)
        return len(self._runs) + sum(lingering)

    def start(self, prepared: PreparedNode) -> None:
        """Call the handler: at once on the loop, as a task, or in a thread."""
        if prepared.handler.kind == "inline":
            ending = self._handle_inline(prepared)
            if ending is not None:
                self._on_end(ending)
            return
        run = _Run(prepared, self._context(prepared))
        self._runs[prepared.entry.name] = run
        run.task = self._loop.create_task(self._handle(run))
        # The first call of a process waits for imports, which are no work of its own.
        if prepared.handler.kind != "process":
            self._begin_time(run)
        if not self._is_claim_timer_set:
            self._is_claim_timer_set = True
            self._loop.call_later(CLAIM_AFTER_S, self._make_claims_due)

    def _handle_inline(self, prepared: PreparedNode) -> Ending | None:
        """None for a call whose output is still to be redacted."""
        started_ms = now_ms()
        context = self._context(prepared)
        try:
            config = self._config(prepared, context)
            self._pulse.enter(prepared.entry.name)
            SPEAKER.set(context)
            text = output_text(prepared, prepared.handler.function(config, context))
            redacted = REDACTOR.data_at_once(text)
            if redacted is not None:
                if context.log is not None:
                    context.end()
                return complete_node(prepared, self._consumer, started_ms, redacted)
            run = self._runs[prepared.entry.name] = _Run(prepared, context)
            run.started_ms = started_ms
            run.task = self._loop.create_task(self._handle(run, text))
            return None
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything
            return _explained(fail_node(prepared, self._consumer, started_ms, error), context)
        finally:
            SPEAKER.set(None)
            self._pulse.leave()

    async def _handle(self, run: _Run, text: bytes | None = None) -> None:
        """`text` is what an inline handler returned, if there is only that left to do."""
        prepared = run.prepared
        SPEAKER.set(run.context)
        try:
            if text is None:
                text = output_text(prepared, await self._call(run))
            redacted = REDACTOR.data_at_once(text)
            if redacted is None:
                # One after the other: each is copied for it.
                async with self._redacting:
                    redacted = await asyncio.to_thread(REDACTOR.data, text)
            ending: Ending = complete_node(prepared, self._consumer, run.started_ms, redacted)
        except GeneratorExit:
            # The loop closes this task: a handler's own came as a failure.
            raise
        except BaseException as error:
            was_let_go = prepared.entry.name not in self._runs
            if was_let_go and isinstance(error, asyncio.CancelledError):
                raise
            ending = fail_node(prepared, self._consumer, run.started_ms, error)
            if not was_let_go:
                _explained(ending, run.context)
        if self._take(prepared.entry.name) is not None:
            self._on_end(ending)

    async def _call(self, run: _Run) -> Any:
        handler = run.prepared.handler
        if handler.kind == "process":
            return await self._call_apart(run)
        config = self._config(run.prepared, run.context)
        if handler.kind != "thread":
            call = handler.function(config, run.context)
            return await watched(call, self._pulse, run.prepared.entry.name)
        run.thread = self._threads.submit(self._call_in_thread, run, config)
        return await asyncio.wrap_future(run.thread)

    async def _call_apart(self, run: _Run) -> Any:
        prepared = run.prepared
        isolated = self._resources.isolated(self._settings)
        await isolated.ready()
        if prepared.entry.deaths >= DEATHS_BEFORE_APART and not run.is_claimed:
            # Only what dies after its start was recorded is counted.
            run.on_claimed = self._loop.create_future()
            await run.on_claimed
        self._begin_time(run)
        config = self._config(prepared, run.context)
        context = run.context
        facts = {
            "only": context.only,
            "budget_tokens": context.budget_tokens,
            "payer_id": context.payer_id,
            "decision": context.decision,
        }
        return await isolated.call(prepared.handler.name, config, context, **facts)

    def _call_in_thread(self, run: _Run, config: dict[str, Any]) -> Any:
        place = self._pulse.enter_thread(run.prepared.entry.name)
        SPEAKER.set(run.context)
        try:
            return run.prepared.handler.function(config, run.context)
        except BaseException as error:  # noqa: BLE001 - a handler may raise anything
            # No future can carry a StopIteration.
            raise as_failure(error) from None
        finally:
            SPEAKER.set(None)
            self._pulse.leave_thread(place)

    def _config(self, prepared: PreparedNode, context: HandlerContext) -> dict[str, Any]:
        """What the handler is called with: templates rendered, and secrets filled in."""
        node = prepared.node
        config = node.config.render(prepared.inputs)
        if node.config.secrets:
            config, context.only = self._secrets.fill(config, node.config.secrets, node.handler)
        return config

    def _context(self, prepared: PreparedNode) -> HandlerContext:
        entry, payer = prepared.entry, prepared.payer
        # By place: by name it takes three times as long.
        context = HandlerContext(
            entry.execution_id,
            entry.node_id,
            entry.attempt,
            self._settings,
            self._resources,
            prepared.plan.bounds.tokens,
            prepared.decision,
            entry.failures,
        )
        if payer is not None:
            context.budget_tokens, context.payer_id = payer.tokens, payer.execution_id
        if entry.waits:
            context.call = entry.waits + 1
        return context

    # Time-outs. A heartbeat begins the time anew.

    def _timeout_s(self, prepared: PreparedNode) -> float:
        return prepared.node.call_limit_s(self._settings.defaults.timeout_s)

    def _begin_time(self, run: _Run) -> None:
        run.since_s = time.monotonic()
        run.timer = self._loop.call_later(self._timeout_s(run.prepared), self._time_out, run)

    def _time_out(self, run: _Run) -> None:
        prepared, timeout_s = run.prepared, self._timeout_s(run.prepared)
        left_s = (run.context.heartbeat_at or run.since_s) + timeout_s - time.monotonic()
        if left_s > 0.001:
            run.timer = self._loop.call_later(left_s, self._time_out, run)
            return
        if not self.cancel(prepared.entry.name):
            return
        silent = "" if run.context.heartbeat_at is None else " since its last heartbeat"
        error = HandlerFailed(
            f"timed out: it took longer than {timeout_s:g} s{silent}", kinds=frozenset({"timeout"})
        )
        self._on_end(fail_node(prepared, self._consumer, run.started_ms, error))

    # Claims: the world hears what runs on, and the worker what is not to run any more.

    def _make_claims_due(self) -> None:
        self._is_claim_timer_set = False
        if any(not run.is_claimed for run in self._runs.values()):
            self._on_claim_due()
        if self._runs and not self._is_again_timer_set:
            self._is_again_timer_set = True
            self._loop.call_later(CLAIM_AGAIN_S, self._claim_again)

    def _claim_again(self) -> None:
        self._is_again_timer_set = False
        for run in self._runs.values():
            run.is_claimed = False
        self._make_claims_due()

    def unclaimed(self) -> list[Claim]:
        """The starts that are to be recorded."""
        return [
            Claim(entry, attempt_record(entry, self._consumer, run.started_ms, None))
            for run in self._runs.values()
            if not run.is_claimed
            for entry in (run.prepared.entry,)
        ]

    def note_claimed(self, name: str) -> None:
        run = self._runs.get(name)
        if run is not None:
            run.is_claimed = True
            if run.on_claimed is not None and not run.on_claimed.done():
                run.on_claimed.set_result(None)

    # Letting go.

    def _take(self, name: str, *, is_over: bool = True) -> _Run | None:
        run = self._runs.pop(name, None)
        if run is not None:
            if is_over:
                run.context.end()
            if run.timer is not None:
                run.timer.cancel()
        return run

    def cancel(self, name: str) -> bool:
        """Let go of one call: what it still returns is dropped; False when it has ended already.

        A thread runs on to its end, or until it looks at its context.
        """
        run = self._take(name, is_over=False)
        if run is None:
            return False
        run.context.cancelled = True
        if run.task is None or run.thread is not None:
            run.context.end()
        else:
            # What it says while it tidies up is heard.
            run.task.add_done_callback(lambda _: run.context.end())
        if run.task is not None:
            run.task.cancel()
        if run.thread is not None and not run.thread.cancel():
            self._look_after(run.thread)
            run.thread.add_done_callback(self._end_in_thread)
        elif run.task is not None and run.thread is None:
            # It may have something to tidy up, or take no notice.
            self._look_after(run.task)
        return True

    def _end_in_thread(self, _call: Future[Any]) -> None:
        """Called in the thread, or here when it has ended already."""
        # The loop may be closed: then nobody asks for the slot.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._on_room)

    def _look_after(self, call: Future[Any] | asyncio.Task[None]) -> None:
        self._let_go = [one for one in self._let_go if not one.done()] + [call]
        self._loop.call_later(GRACE_S, self._look_again, call)

    def _look_again(self, call: Future[Any] | asyncio.Task[None]) -> None:
        """The supervisor replaces a worker that has calls it cannot stop."""
        if not call.done():
            self._pulse.note_stuck()

    async def cancel_all(self) -> bool:
        """Let go of every call; True when one of them does not end: a thread cannot be stopped,
        and an async handler may take no notice."""
        for name in list(self._runs):
            self.cancel(name)
        tasks = [one for one in self._let_go if isinstance(one, asyncio.Task)]
        if tasks:
            await asyncio.wait(tasks, timeout=GRACE_S)
        return not all(call.done() for call in self._let_go)


def _explained(ending: Ending, context: HandlerContext) -> Ending:
    """An attempt that failed, with where it came from as the end of its log."""
    trace = traceback_of(getattr(ending, "report", b""))
    if trace and (log := context.node_log()) is not None:
        log.write("traceback", trace)
    if context.log is not None:
        context.end()
    return ending
