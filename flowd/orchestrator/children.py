"""The executions that nodes of the handler `workflow` wait for: made, looked at, stopped."""

from __future__ import annotations

from typing import Final, NamedTuple

import orjson

from flowd.errors import (
    CorruptExecution,
    Fail,
    HandlerFailed,
    InvalidRequest,
    InvalidWorkflow,
    OutputFailed,
    ResultsTooLarge,
    UnknownDefinition,
    UnknownExecution,
    WrongState,
)
from flowd.handlers.context import ChildEnd, WantedChild
from flowd.orchestrator import executor
from flowd.orchestrator.pinning import pin_versions
from flowd.orchestrator.places import place_for
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.rerun import FAILED, plan_rerun, reuse_of
from flowd.orchestrator.versions import expect_no_older_process
from flowd.orchestrator.worth import output_of
from flowd.store import Store
from flowd.store.budgets import Payer
from flowd.store.child_starts import ChildStart, ChildWorkflow
from flowd.store.making import Pin, Reuse
from flowd.store.saved import Saved
from flowd.workflow.children import DEPTH_MAX, TREE_MAX, Parent
from flowd.workflow.graph import Plan
from flowd.workflow.ids import child_id

_REFUSALS = {
    "ended": "its execution, or the map it is an item of, was ended meanwhile",
    "taken": "the id of its child is that of another execution",
    "deep": f"its child would be more than {DEPTH_MAX} executions deep",
    "large": f"its tree has {TREE_MAX:,} executions already, and no more may be",
    "own": "its child would wait for a place that its own execution, or one above that, holds",
    "corrupt": "what its execution keeps of children was damaged",
}


# Of the saved workflows that are kept: how many, and how large each may be.
_KEPT_MAX: Final = 256
_KEPT_BYTES_MAX: Final = 64 * 1024
# The outputs of so many are read in one call, where they are small.
_FEW_NODES: Final = 16


class _Known(NamedTuple):
    saved: Saved
    plan: Plan


class Children:
    """What the handler `workflow` is given."""

    def __init__(self, store: Store, plans: Plans) -> None:
        self._store = store
        self._plans = plans
        # Versions never change; that one was deleted says the script that makes a child of it.
        self._known: dict[tuple[str, int | None], _Known] = {}

    async def start(self, parent: Parent, wanted: WantedChild, payer: Payer | None) -> bool:
        """False where it was made before. Raises Fail where none can be, and OlderProcess."""
        execution_id = child_id(*parent)
        while True:
            try:
                known = await self._find(wanted)
            except UnknownDefinition as error:
                if await self._store.children.is_made(execution_id, parent):
                    return False
                raise Fail(str(error)) from None
            outcome = await self._start(parent, execution_id, wanted, payer, known)
            if outcome != "changed":
                break
            self._known.clear()
        if outcome == "continue":
            plan = await self._plans.load(execution_id, "")
            await executor.advance_node(self._store, plan, execution_id, executor.ROOTS)
        elif outcome in _REFUSALS:
            raise Fail(_REFUSALS[outcome])
        elif outcome == "refused":
            # It has places again when others have ended: that is worth another attempt.
            raise HandlerFailed("its child was refused: all places of that workflow are taken")
        await executor.stop_replaced(self._store, outcome)
        return outcome != "exists"

    async def _find(self, wanted: WantedChild) -> _Known:
        """Raises UnknownDefinition."""
        known = self._known.get(wanted[:2])
        if known is None:
            saved = await self._store.saved.find(wanted.name, wanted.version)
            what = f"{saved.name}@{saved.version}"
            known = _Known(saved, await self._plans.of_definition(what, saved.definition))
            if wanted.version is not None and len(saved.definition) <= _KEPT_BYTES_MAX:
                while len(self._known) >= _KEPT_MAX:
                    del self._known[next(iter(self._known))]
                self._known[wanted[:2]] = known
        return known

    async def _start(
        self,
        parent: Parent,
        execution_id: str,
        wanted: WantedChild,
        payer: Payer | None,
        known: _Known,
    ) -> str:
        """The outcome of start_children.lua."""
        saved, plan = known
        definition = saved.definition
        if plan.has_children:
            definition = await self._pinned(definition)
            plan = await self._plans.of_definition(f"{saved.name}@{saved.version}", definition)
        await expect_no_older_process(self._store, plan.language)
        if plan.input_schema is not None:
            whole = {**plan.default_input, **(wanted.given or {})}
            await wanted.check_input(dict(plan.input_schema), whole)
        given_input = orjson.dumps(wanted.given) if wanted.given else b""
        try:
            place = place_for(plan.concurrency, given_input)
        except InvalidRequest as error:
            raise Fail(f"its child is not to be given this: {error}") from None
        pin = Pin(saved.name, saved.version, is_latest=False, digest=saved.digest)
        workflow = ChildWorkflow(definition, plan, pin, payer)
        child = ChildStart(parent, execution_id, given_input, place)
        outcome = await self._store.submissions.start_child(workflow, child)
        if outcome != "rerun":
            return outcome
        reuse = await self._reuse(parent, definition, given_input)
        workflow = workflow._replace(has_looked=True)
        return await self._store.submissions.start_child(workflow, child, reuse)

    async def _reuse(self, parent: Parent, definition: bytes, given_input: bytes) -> Reuse | None:
        """What a child takes over from that of the execution its parent reruns the failures of:
        the same workflow failed there on the same input. None for any other."""
        store = self._store
        if parent.number > 1 or not (source := await store.children.reran(parent)):
            return None
        try:
            same = await store.children.made_of(source)
            if same != (definition, given_input):
                return None
            wanted = await plan_rerun(store, source, FAILED)
            return await reuse_of(store, wanted) if wanted.runs else None
        except (UnknownExecution, CorruptExecution, WrongState):
            return None

    async def _pinned(self, definition: bytes) -> bytes:
        try:
            return await pin_versions(self._store, definition)
        except InvalidWorkflow as error:
            raise Fail(f"its child cannot be made: {error}") from None

    async def find_end(self, execution_id: str) -> ChildEnd | None:
        """None while it has not ended. Raises Fail where it is gone."""
        try:
            status = await self._store.executions.execution_status(execution_id)
            if not status.is_terminal:
                return None
            return ChildEnd(status, await self._store.executions.failure(execution_id))
        except UnknownExecution:
            raise Fail(f"its child {execution_id!r} is gone") from None

    async def stop(self, execution_id: str) -> None:
        """Cancel it, if it has not ended."""
        try:
            await executor.cancel_execution(self._store, execution_id)
        except (UnknownExecution, WrongState):
            return

    async def follow(self, execution_id: str) -> None:
        """Cancel the children of this execution that nobody waits for any more."""
        await executor.follow(self._store, execution_id)

    async def output(self, execution_id: str, wanted: WantedChild, bytes_max: int) -> bytes:
        """What one that completed is worth, as a JSON object. Raises Fail where there is none."""
        known = self._known.get(wanted[:2])
        try:
            plan = known.plan if known else await self._plans.load(execution_id, "")
            if plan.output is None and len(plan.nodes) <= _FEW_NODES:
                found = await self._store.nodes.small_outputs(execution_id, tuple(plan.nodes))
                if found is not None:
                    return found
            worth = await output_of(self._store, plan, execution_id, bytes_max)
        except (ResultsTooLarge, OutputFailed, UnknownExecution, WrongState) as error:
            raise Fail(f"the output of its child cannot be had: {error}") from None
        return worth if worth.startswith(b"{") else b'{"output":%b}' % worth
