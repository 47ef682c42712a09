"""The executions that nodes of the handler `workflow` wait for: made, looked at, stopped."""

from __future__ import annotations

import orjson

from flowd.errors import (
    CorruptExecution,
    Fail,
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
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.rerun import FAILED, plan_rerun, reuse_of
from flowd.orchestrator.versions import expect_no_older_process
from flowd.orchestrator.worth import output_of
from flowd.store import Store
from flowd.store.budgets import Payer
from flowd.store.origins import Origin
from flowd.store.submissions import Reuse
from flowd.workflow.children import DEPTH_MAX, TREE_MAX, Parent
from flowd.workflow.ids import child_id

_REFUSALS = {
    "ended": "its execution, or the map it is an item of, was ended meanwhile",
    "taken": "the id of its child is that of another execution",
    "deep": f"its child would be more than {DEPTH_MAX} executions deep",
    "large": f"its tree has {TREE_MAX:,} executions already, and no more may be",
    "corrupt": "what its execution keeps of children was damaged",
}


class Children:
    """What the handler `workflow` is given."""

    def __init__(self, store: Store, plans: Plans) -> None:
        self._store = store
        self._plans = plans

    async def start(self, parent: Parent, wanted: WantedChild, payer: Payer | None) -> bool:
        """False where it was made before. Raises Fail where none can be, and OlderProcess."""
        store, execution_id = self._store, child_id(*parent)
        try:
            saved = await store.saved.find(wanted.name, wanted.version)
        except UnknownDefinition as error:
            if await store.children.is_made(execution_id, parent):
                return False
            raise Fail(str(error)) from None
        definition, what = saved.definition, f"{wanted.name}@{saved.version}"
        plan = await self._plans.of_definition(what, definition)
        if plan.has_children:
            definition = await self._pinned(definition)
            plan = await self._plans.of_definition(what, definition)
        await expect_no_older_process(store, plan.language)
        if plan.input_schema is not None:
            whole = {**plan.default_input, **(wanted.given or {})}
            await wanted.check_input(dict(plan.input_schema), whole)
        given_input = orjson.dumps(wanted.given) if wanted.given else b""
        outcome = await store.submissions.start_child(
            definition,
            plan,
            parent=parent,
            execution_id=execution_id,
            given_input=given_input,
            payer=payer,
            origin=Origin(definition=what),
            reuse=await self._reuse(parent, definition, given_input),
        )
        if outcome == "continue":
            await executor.advance_node(store, plan, execution_id, executor.ROOTS)
        elif outcome in _REFUSALS:
            raise Fail(_REFUSALS[outcome])
        return outcome != "exists"

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

    async def output(self, execution_id: str, bytes_max: int) -> bytes:
        """What one that completed is worth, as a JSON object. Raises Fail where there is none."""
        try:
            plan = await self._plans.load(execution_id, "")
            worth = await output_of(self._store, plan, execution_id, bytes_max)
        except (ResultsTooLarge, OutputFailed, UnknownExecution, WrongState) as error:
            raise Fail(f"the output of its child cannot be had: {error}") from None
        return worth if worth.startswith(b"{") else b'{"output":%b}' % worth
