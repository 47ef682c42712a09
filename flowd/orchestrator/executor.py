"""Start executions and hold them up, and carry on where one script call is not enough."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from typing import Any, Final

import orjson

from flowd.errors import CorruptExecution, UnknownExecution, WrongState
from flowd.log import get_logger
from flowd.orchestrator.pinning import pin_versions
from flowd.orchestrator.places import refusal
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.versions import expect_no_older_process
from flowd.store import Store
from flowd.store.children import Child
from flowd.store.dependents import (
    DEPENDENTS_PER_CALL_MAX,
    LOOKS_LEFT,
    Arrives,
    downstream_arguments,
    is_wide,
    looks_argument,
)
from flowd.store.endings import AllowedFailure, Ending, Failure, ItemFailure, RetryLater, Wait
from flowd.store.entries import Entry
from flowd.store.executions import slices
from flowd.workflow.concurrency import place_of
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.graph import Plan, compile_plan
from flowd.workflow.states import CANCELLING, ExecutionState, NodeState

# What is done beside the one call that ends a node; each may be begun anew by anyone.
Step = Callable[[Store, Plan, str, str], Awaitable[None]]

# The schema, the workflow's own input, and inputs by the path they came by.
InputCheck = Callable[[Mapping[str, Any], Mapping[str, Any], Mapping[str, Any]], Awaitable[None]]

log = get_logger(__name__)

# The node id under which an execution's roots are opened, as if they depended on it.
ROOTS = ""
# How children follow their parent, besides that those nobody waits for are cancelled.
HOLD: Final = "hold"
FORCE: Final = "force"
# What an outcome begins with that says who was cancelled to make room.
REPLACED: Final = "replaced"
# Children that are held up at a time, each with a connection of its own.
FOLLOWING_TOGETHER: Final = 8


async def submit_workflow(
    store: Store, workflow: WorkflowDefinition, execution_id: str = "", key_digest: str = ""
) -> str:
    """Store a validated workflow as a new execution; its id, which the caller may have chosen, and
    claimed for an Idempotency-Key. Raises UnknownExecution when that was deleted since, and
    OlderProcess."""
    definition = workflow.to_json()
    plan = compile_plan(definition)
    if plan.has_children:
        definition = await pin_versions(store, definition)
        plan = compile_plan(definition)
    await expect_no_older_process(store, plan.language)
    return await store.submissions.submit_workflow(
        definition, plan, execution_id=execution_id, key_digest=key_digest
    )


async def trigger_workflow(
    store: Store,
    execution_id: str,
    given_input: bytes = b"",
    traceparent: str = "",
    check_input: InputCheck | None = None,
) -> None:
    """Start an execution, or have it wait for a place; harmless when that was done before. Raises
    UnknownExecution, LimitReached, InvalidRequest where the key of its `concurrency` cannot be
    made, and what `check_input` does, which is asked where the workflow has an `input_schema`.

    `given_input` (a JSON object) is what its templates read as `input`, over the workflow's own;
    `traceparent` (W3C Trace Context) goes along with its calls to services.
    """
    start = partial(store.executions.trigger_workflow, execution_id, given_input, traceparent)
    outcome = await start(is_checked=check_input is None)
    if outcome == "unchecked":
        plan = await Plans(store).load(execution_id, "")
        # That of a rerun is there before.
        given = orjson.loads(given_input) if given_input else None
        kept = await store.executions.listing.given_input(execution_id) if given is None else given
        if check_input is not None and plan.input_schema is not None:
            await check_input(plan.input_schema, plan.default_input, {"input": kept or {}})
        place = place_of(plan.concurrency, kept or {}) if plan.concurrency else ""
        outcome = await start(place=place)
        if outcome == "refused":
            raise await refusal(store, plan.concurrency, place, execution_id=execution_id)
    await stop_replaced(store, outcome)
    if outcome == "continue":
        plan = await Plans(store).load(execution_id, "")
        await advance_node(store, plan, execution_id, ROOTS)


async def stop_replaced(store: Store, outcome: str) -> None:
    """Carry on with what an outcome says was cancelled to make room: `replaced`, and the ids."""
    if not outcome.startswith(REPLACED):
        return
    for execution_id in outcome.split(" ")[1:]:
        with suppress(UnknownExecution, WrongState, CorruptExecution):
            await cancel_execution(store, execution_id)


async def advance_node(store: Store, plan: Plan, execution_id: str, node_id: str) -> None:
    """Open the many dependents of a node that has ended, slice by slice; may be begun anew."""
    dependents = _dependents(plan, node_id)
    if node_id == ROOTS and (roots := await store.executions.rerun_roots(execution_id)):
        dependents = [(root, 0) for root in roots]
    arrives: Arrives = "completed"
    if plan.has_choices and node_id != ROOTS:
        states = await store.nodes.states(execution_id, [node_id])
        arrives = "skipped" if states[node_id] is NodeState.SKIPPED else "completed"
    await _open_slices(store, plan, execution_id, node_id, dependents, arrives)


async def tell_failure(store: Store, plan: Plan, execution_id: str, node_id: str) -> None:
    """Tell the many dependents that look at a failure of this node; may be begun anew by anyone."""
    await _open_slices(store, plan, execution_id, node_id, plan.nodes[node_id].looks, "failed")


async def _open_slices(
    store: Store,
    plan: Plan,
    execution_id: str,
    node_id: str,
    dependents: Sequence[tuple[str, int]],
    arrives: Arrives,
) -> None:
    offset = 0
    while offset < len(dependents):
        offset = await store.executions.advance_node(
            execution_id,
            node_id,
            plan.digest,
            offset=offset,
            total=len(dependents),
            dependents=dependents[offset : offset + DEPENDENTS_PER_CALL_MAX],
            arrives=arrives,
        )


def _dependents(plan: Plan, node_id: str) -> Sequence[tuple[str, int]]:
    if node_id == ROOTS:
        return [(root, 0) for root in plan.roots]
    node = plan.nodes[node_id]
    return [*((one, 1) for one in node.opens), *node.joins]


def node_failure(
    plan: Plan,
    entry: Entry,
    *,
    record: str,
    error: str,
    dead_letter: str = "",
    report: bytes = b"",
    is_own: bool = True,
) -> Failure | AllowedFailure:
    """A node's failure with all it takes along: every node that cannot run without it. One that is
    allowed takes nothing along, and covers what `is_own` only.
    """
    node, output = plan.node(entry.node_id), error_output(error)
    if node.is_item:
        return ItemFailure(entry, node, record, output, report, dead_letter)
    if node.allow_failure and is_own:
        return AllowedFailure(entry, node, record, output, report, dead_letter)
    return Failure(
        entry,
        record,
        output,
        _downstream_output(entry.node_id),
        downstream_arguments(plan, entry.node_id),
        dead_letter,
        report,
        looks_argument(plan, entry.node_id),
    )


async def fail_downstream(store: Store, plan: Plan, execution_id: str, node_id: str) -> None:
    """Fail the many nodes downstream of a failed one, slice by slice; may be begun anew."""
    output = _downstream_output(node_id)
    node_ids = downstream_arguments(plan, node_id)
    outcome = await store.executions.fail_downstream(
        execution_id, node_id, plan.digest, output, node_ids
    )
    if outcome == "finished":
        await log_failed_execution(store, plan, execution_id)


async def log_failed_execution(
    store: Store, plan: Plan, execution_id: str, _node_id: str = ""
) -> None:
    """Write the line of an execution that has just ended as FAILED, with its first failure."""
    error = await store.executions.failure(execution_id)
    log.error("execution.failed", execution_id=execution_id, name=plan.name, error=error)


async def log_cancelled_execution(
    _store: Store, plan: Plan, execution_id: str, _node_id: str = ""
) -> None:
    """Write the line of an execution that has ended as CANCELLED, after its `finally`."""
    log.info("execution.cancelled", execution_id=execution_id, name=plan.name)


async def log_completed_execution(
    _store: Store, plan: Plan, execution_id: str, _node_id: str = ""
) -> None:
    """Write the line of an execution that has just ended as COMPLETED."""
    log.info("execution.completed", execution_id=execution_id, name=plan.name)


def steps_left(ending: Ending, outcome: str) -> list[tuple[Step, str]]:
    """What is left to do when an ending has been committed with this outcome, each with the node it
    is about: what was too much for that call, and the line of an execution that has ended.
    """
    node_id = ending.entry.node_id
    if isinstance(ending, RetryLater | Wait):
        return []
    if not isinstance(ending, Failure):
        if outcome in _ENDED_BY_ADVANCE:
            return [(_ENDED_BY_ADVANCE[outcome], node_id)]
        return [(advance_node, node_id)] if is_wide(ending.node) else []
    if outcome in _ENDED_BY_FAILURE:
        return [(_ENDED_BY_FAILURE[outcome], node_id)]
    steps: list[tuple[Step, str]] = []
    if len(ending.downstream) > DEPENDENTS_PER_CALL_MAX:
        steps.append((fail_downstream, node_id))
    failed = (node_id + ending.looks, *ending.downstream)
    steps += [
        (tell_failure, one.removesuffix(LOOKS_LEFT)) for one in failed if one.endswith(LOOKS_LEFT)
    ]
    return steps


# How an execution ends with a node that advances its dependents.
_ENDED_BY_ADVANCE: Final[Mapping[str, Step]] = {
    "finished": log_completed_execution,
    "failed": log_failed_execution,
    "cancelled": log_cancelled_execution,
}
_ENDED_BY_FAILURE: Final[Mapping[str, Step]] = {
    "finished": log_failed_execution,
    "cancelled": log_cancelled_execution,
}


async def pause_execution(store: Store, execution_id: str) -> None:
    """Let no further node start, of its children too. Raises UnknownExecution, or WrongState unless
    it runs."""
    outcome = await store.lifecycle.pause_execution(execution_id)
    if outcome != "paused":
        raise _wrong_state(execution_id, outcome, "pause")
    await follow(store, execution_id, HOLD)


async def resume_execution(store: Store, execution_id: str) -> None:
    """Let a paused execution go on, with its children; harmless while it runs. Raises
    UnknownExecution, WrongState."""
    outcome = await store.lifecycle.resume_execution(execution_id)
    if outcome != "resumed":
        raise _wrong_state(execution_id, outcome, "resume")
    await follow(store, execution_id, HOLD)


def _wrong_state(execution_id: str, status: str, verb: str) -> WrongState:
    if status == CANCELLING:
        hint = ", and is being cancelled"
        return WrongState(execution_id, ExecutionState.RUNNING, verb, hint)
    return WrongState(execution_id, status, verb)


async def cancel_execution(store: Store, execution_id: str, *, force: bool = False) -> None:
    """End an execution before its time. Raises UnknownExecution, or WrongState when it has ended.

    Nothing of it starts any more but its `finally`, which `force` leaves out or breaks off; what
    runs is told within a second, and its result is not kept.
    """
    outcome = await store.lifecycle.cancel_execution(execution_id, force=force)
    if outcome not in ("cancelled", "cancelling"):
        raise WrongState(execution_id, outcome, "cancel")
    event = "execution.cancelled" if outcome == "cancelled" else "execution.cancelling"
    log.info(event, execution_id=execution_id)
    plan = await Plans(store).load(execution_id, "")
    await cancel_nodes(store, plan, execution_id)
    if outcome == "cancelling":
        # It may have been paused in its `finally`.
        await store.lifecycle.resume_execution(execution_id, is_begun=True)
    if plan.has_children:
        await follow(store, execution_id, FORCE if force else HOLD)


async def follow(store: Store, execution_id: str, how: str = "") -> None:
    """Have the children of an execution follow it: those nobody waits for any more are cancelled,
    and with HOLD the others are paused or resumed as it is; FORCE cancels without their `finally`.

    May be begun anew by anyone; theirs follow them.
    """
    while True:
        status = await store.children.status(execution_id)
        async for children in store.children.pages(execution_id):
            live = [one for one in children if one.is_live]
            for some in slices(live, FOLLOWING_TOGETHER):
                await asyncio.gather(
                    *(_follow(store, execution_id, status, one, how) for one in some)
                )
        if await store.children.settle_follow(execution_id, how, status):
            return


async def _follow(store: Store, parent_id: str, status: str, child: Child, how: str) -> None:
    execution_id = child.execution_id
    try:
        if child.is_orphan or status not in (ExecutionState.RUNNING, ExecutionState.PAUSED):
            await cancel_execution(store, execution_id, force=how == FORCE)
        elif how == "":
            return
        elif status == ExecutionState.PAUSED and child.status == ExecutionState.RUNNING:
            await store.lifecycle.pause_execution(execution_id, parent_id=parent_id)
            await follow(store, execution_id, HOLD)
        elif status == ExecutionState.RUNNING and child.status == ExecutionState.PAUSED:
            await store.lifecycle.resume_execution(execution_id, parent_id=parent_id)
            await follow(store, execution_id, HOLD)
    except (UnknownExecution, WrongState, CorruptExecution):
        # It has ended meanwhile, or a hand was in it: the others follow all the same.
        log.debug("child.not_followed", execution_id=execution_id)


async def cancel_nodes(store: Store, plan: Plan, execution_id: str) -> None:
    """Mark the nodes of a cancelled execution; may be begun anew by anyone."""
    node_ids = list(plan.nodes)
    is_before_finally = bool(plan.finally_nodes) and await store.lifecycle.is_cancelling(
        execution_id
    )
    if is_before_finally:
        node_ids = [one for one in node_ids if one not in plan.finally_nodes]
    for node_id in plan.maps:
        # First, as the last slice of the others ends the continuation.
        if node_id in node_ids:
            await cancel_items(store, execution_id, node_id)
    await store.lifecycle.cancel_nodes(execution_id, node_ids, before_finally=is_before_finally)


async def cancel_items(store: Store, execution_id: str, node_id: str) -> None:
    """Mark what has not ended of the items of a map that was stopped, or of a cancelled one."""
    standing = await store.nodes.maps.standing(execution_id, node_id)
    if standing is not None:
        await store.nodes.maps.cancel_items(execution_id, node_id, standing.n)


def error_output(error: str) -> bytes:
    """What stands in a failed node's output key."""
    return orjson.dumps({"error": error})


def _downstream_output(node_id: str) -> bytes:
    return error_output(f"not run: it depends on {node_id!r}, which failed")
