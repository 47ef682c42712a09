"""The handler calls of one worker: each takes a slot, and ends as a completion or a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final

from flowd.config import Settings
from flowd.store.executions import now_ms
from flowd.store.tasks import Claim, Completion, Failure, attempt_record
from flowd.workers.node_run import PreparedNode, complete_node, error_text, fail_node
from flowd.workers.registry import HandlerContext, Resources

# A node that ends sooner is never seen RUNNING, and saves the call that would have said so.
CLAIM_AFTER_S: Final = 0.002

Ending = Completion | Failure


class _Run:
    """A handler call that did not end at once."""

    __slots__ = ("context", "is_claimed", "is_in_thread", "prepared", "started_ms", "task")

    def __init__(self, prepared: PreparedNode, context: HandlerContext, started_ms: int) -> None:
        self.prepared = prepared
        self.context = context
        self.started_ms = started_ms
        self.is_claimed = False
        self.is_in_thread = prepared.handler.kind == "thread"
        self.task: asyncio.Task[None] | None = None


class Slots:
    """`on_end` hears of every ending, `on_claim_due` when there are starts to be recorded."""

    def __init__(
        self,
        settings: Settings,
        resources: Resources,
        threads: Executor,
        consumer: str,
        *,
        on_end: Callable[[Ending], None],
        on_claim_due: Callable[[], None],
    ) -> None:
        self._settings = settings
        self._resources = resources
        self._threads = threads
        self._consumer = consumer
        self._on_end = on_end
        self._on_claim_due = on_claim_due
        self._loop = asyncio.get_running_loop()
        self._runs: dict[str, _Run] = {}
        self._is_claim_timer_set = False

    def __len__(self) -> int:
        return len(self._runs)

    def start(self, prepared: PreparedNode, *, is_claimed: bool = False) -> None:
        """Call the handler: at once on the loop, as a task, or in a thread."""
        if prepared.handler.kind == "inline":
            self._on_end(self._handle_inline(prepared))
            return
        run = _Run(prepared, self._context(prepared), now_ms())
        run.is_claimed = is_claimed
        self._runs[prepared.entry.entry_id] = run
        run.task = self._loop.create_task(self._handle(run))
        if not is_claimed and not self._is_claim_timer_set:
            self._is_claim_timer_set = True
            self._loop.call_later(CLAIM_AFTER_S, self._make_claims_due)

    def _handle_inline(self, prepared: PreparedNode) -> Ending:
        started_ms = now_ms()
        try:
            config = prepared.node.config.render(prepared.inputs)
            output = prepared.handler.function(config, self._context(prepared))
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a handler may raise anything
            return fail_node(prepared, self._consumer, started_ms, error_text(error))
        return complete_node(prepared, self._consumer, started_ms, output)

    async def _handle(self, run: _Run) -> None:
        prepared = run.prepared
        try:
            config = prepared.node.config.render(prepared.inputs)
            function, context = prepared.handler.function, run.context
            if run.is_in_thread:
                output = await self._loop.run_in_executor(self._threads, function, config, context)
            else:
                output = await function(config, context)
            ending = complete_node(prepared, self._consumer, run.started_ms, output)
        except asyncio.CancelledError:
            if prepared.entry.entry_id not in self._runs:
                raise
            error = "the handler cancelled itself"
            ending = fail_node(prepared, self._consumer, run.started_ms, error)
        except (Exception, SystemExit) as error:  # noqa: BLE001 - a handler may raise anything
            ending = fail_node(prepared, self._consumer, run.started_ms, error_text(error))
        if self._runs.pop(prepared.entry.entry_id, None) is not None:
            self._on_end(ending)

    def _context(self, prepared: PreparedNode) -> HandlerContext:
        entry = prepared.entry
        return HandlerContext(
            entry.execution_id, entry.node_id, entry.attempt, self._settings, self._resources
        )

    def _make_claims_due(self) -> None:
        self._is_claim_timer_set = False
        self._on_claim_due()

    def unclaimed(self) -> list[Claim]:
        """The starts no claim has recorded yet."""
        return [
            Claim(entry, attempt_record(entry, self._consumer, run.started_ms, None))
            for run in self._runs.values()
            if not run.is_claimed
            for entry in (run.prepared.entry,)
        ]

    def note_claimed(self, entry_id: str) -> None:
        run = self._runs.get(entry_id)
        if run is not None:
            run.is_claimed = True

    def cancel(self, entry_id: str) -> bool:
        """Let go of one call: what it still returns is dropped; False when it has ended already.

        A thread runs on to its end, or until it looks at its context.
        """
        run = self._runs.pop(entry_id, None)
        if run is None:
            return False
        run.context.cancelled = True
        if run.task is not None:
            run.task.cancel()
        return True

    def cancel_all(self) -> bool:
        """Let go of every call; True when one of them is in a thread, which cannot be stopped."""
        has_threads = any(run.is_in_thread for run in self._runs.values())
        for entry_id in list(self._runs):
            self.cancel(entry_id)
        return has_threads
