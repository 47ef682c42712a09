"""What follows from an ending once it was committed: its lines, its figures, what is left to do."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Mapping, Sequence
from typing import Any, Final

from flowd.errors import CorruptExecution, StoreError, UnknownExecution
from flowd.log import get_logger
from flowd.orchestrator.executor import Step, steps_left
from flowd.orchestrator.plans import Plans
from flowd.store import Store
from flowd.store.dependents import is_wide
from flowd.store.endings import (
    COMMITTED,
    AllowedFailure,
    Completion,
    Ending,
    Failure,
    ItemCompletion,
    ItemFailure,
    ItemPause,
    ItemRetry,
    RetryLater,
    Single,
    Skip,
    Wait,
)
from flowd.store.entries import Entry
from flowd.workers.ending_log import log_ending, log_failure, log_poison
from flowd.workers.intake import Intake
from flowd.workers.tally import Tally
from flowd.workflow.caching import Keep
from flowd.workflow.graph import Plan
from flowd.workflow.states import NodeState

log = get_logger(__name__)


class Settlement:
    """`on_stale` hears of a node that was taken away, which happens when the lease is gone."""

    def __init__(
        self,
        store: Store,
        plans: Plans,
        intake: Intake,
        tally: Tally,
        on_stale: Callable[[], None],
    ) -> None:
        self._store = store
        self._plans = plans
        self._intake = intake
        self._tally = tally
        self._on_stale = on_stale
        self._side_tasks: set[asyncio.Task[None]] = set()
        # Outputs that are to be kept for equal calls, until that is written.
        self._kept: list[tuple[Keep, bytes]] = []

    def break_off(self) -> None:
        """Leave what goes on beside the loop to the scheduler."""
        for task in self._side_tasks:
            task.cancel()

    def settle(self, endings: Sequence[Ending], outcomes: Sequence[str]) -> None:
        """Settle each of these by what its script has said."""
        for ending, outcome in zip(endings, outcomes, strict=True):
            self._intake.release(ending.entry.name)
            if outcome in COMMITTED:
                _SETTLE[type(ending)](self, ending, outcome)
            else:
                self.settle_oddity(ending.entry, outcome)
        if log.is_debug():
            for ending in endings:
                if isinstance(ending, Completion):
                    log_ending(log.debug, "node.completed", ending)

    def settle_oddity(self, entry: Entry, outcome: str) -> None:
        """Of a node that was not to run any more, was taken away, or has damaged keys."""
        if outcome == "corrupt":
            self._carry_on(_fail_corrupt, entry)
            return
        if outcome == "stale":
            self._on_stale()
        log.warning(
            "node.commit_rejected",
            execution_id=entry.execution_id,
            node_id=entry.node_id,
            attempt=entry.attempt,
            outcome=outcome,
        )

    # How each ending that was committed is settled: said by its type, see _SETTLE.

    def _settle_completion(self, completion: Completion, outcome: str) -> None:
        node = completion.node
        self._note_completion(completion)
        if outcome == "finished":
            self._note_end(completion.entry)
        elif outcome != "completed":
            self._carry_on_after(completion, outcome)
        elif node.opens or node.joins:
            if not node.is_static:
                self._intake.keep_output(completion)
            if is_wide(node):
                self._carry_on_after(completion, outcome)

    def _settle_item(self, item: ItemCompletion, _outcome: str) -> None:
        self._note_completion(item)

    def _settle_failed_item(self, failure: ItemFailure, _outcome: str) -> None:
        self._tally.note_record(failure.node.handler, NodeState.FAILED, failure.record)
        log_failure(failure)
        if failure.dead_letter:
            log_poison(failure)

    def _settle_skip(self, skip: Skip, outcome: str) -> None:
        self._tally.note_record(skip.node.handler, NodeState.SKIPPED, skip.record)
        log_ending(log.info, "node.skipped", skip, reason=skip.reason.decode())
        self._carry_on_after(skip, outcome)

    def _settle_allowed_failure(self, failure: AllowedFailure, outcome: str) -> None:
        self._tally.note_record(failure.node.handler, NodeState.FAILED, failure.record)
        log_failure(failure)
        if failure.dead_letter:
            log_poison(failure)
        self._carry_on_after(failure, outcome)

    def _settle_retry(self, retry: RetryLater, _outcome: str) -> None:
        self._note_failure(retry, NodeState.RETRYING)
        log_ending(log.info, "node.retrying", retry, error=retry.error)

    def _settle_wait(self, wait: Wait, _outcome: str) -> None:
        self._note_failure(wait, NodeState.WAITING)
        log_ending(log.debug, "node.waiting", wait, waits_for=wait.waker)

    def _settle_failure(self, failure: Failure, outcome: str) -> None:
        self._note_failure(failure, NodeState.FAILED)
        log_failure(failure)
        if failure.dead_letter:
            log_poison(failure)
        self._carry_on_after(failure, outcome)

    def _note_failure(self, failure: Single, state: NodeState) -> None:
        entry = failure.entry
        plan = self._plans.cached(entry.plan_digest)
        handler = plan.node(entry.node_id).handler if plan else ""
        self._tally.note_record(handler, state, failure.record)

    def _note_end(self, entry: Entry) -> None:
        """Write the line of an execution that has ended as COMPLETED with this node."""
        plan = self._plans.cached(entry.plan_digest)
        name = plan.name if plan else None
        log.info("execution.completed", execution_id=entry.execution_id, name=name)

    def _note_completion(self, completion: Completion) -> None:
        handler, keep = completion.node.handler, completion.keep
        if keep is not None and keep.is_hit:
            self._tally.note_hit(handler)
            return
        self._tally.note_record(handler, NodeState.COMPLETED, completion.record)
        if keep is not None:
            self._tally.note_miss(handler)
            if not self._kept:
                self._begin_beside(self._write_kept())
            self._kept.append((keep, completion.output))

    async def _write_kept(self) -> None:
        """What was settled together is written together. A cache may forget."""
        kept, self._kept = self._kept, []
        with contextlib.suppress(StoreError):
            await self._store.tasks.cache.keep(kept)

    def _carry_on_after(self, ending: Ending, outcome: str) -> None:
        for step, node_id in steps_left(ending, outcome):
            self._carry_on(step, ending.entry._replace(node_id=node_id))

    def _carry_on(self, step: Step, entry: Entry) -> None:
        """Do beside the loop what is too much for one call; the scheduler ends what breaks off."""
        self._begin_beside(self._side_step(step, entry))

    def _begin_beside(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._side_tasks.add(task)
        task.add_done_callback(self._side_tasks.discard)

    async def _side_step(self, step: Step, entry: Entry) -> None:
        with contextlib.suppress(StoreError, UnknownExecution, CorruptExecution):
            plan = await self._plans.load(entry.execution_id, entry.plan_digest)
            await step(self._store, plan, entry.execution_id, entry.node_id)


# A new way to end is a line here, one in the calls of the store, and its script.
_SETTLE: Final[Mapping[type[Any], Callable[[Settlement, Any, str], None]]] = {
    Completion: Settlement._settle_completion,
    Skip: Settlement._settle_skip,
    AllowedFailure: Settlement._settle_allowed_failure,
    ItemCompletion: Settlement._settle_item,
    ItemFailure: Settlement._settle_failed_item,
    ItemPause: Settlement._settle_wait,
    ItemRetry: Settlement._settle_retry,
    Failure: Settlement._settle_failure,
    RetryLater: Settlement._settle_retry,
    Wait: Settlement._settle_wait,
}


async def _fail_corrupt(store: Store, _plan: Plan, execution_id: str, node_id: str) -> None:
    reason = f"its counters were damaged; seen when node {node_id!r} ended"
    if await store.executions.fail_execution(execution_id, reason):
        log.error("execution.corrupt", execution_id=execution_id, reason=reason)
