"""Run an execution that has ended again: from a node on, or what failed; the rest is reused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flowd.errors import UnknownNode, WrongState
from flowd.orchestrator.executor import error_output
from flowd.orchestrator.plans import Plans
from flowd.store import Store
from flowd.store.submissions import Reuse
from flowd.workflow.graph import Plan, PlannedNode
from flowd.workflow.states import ExecutionState, NodeState

# What `start` may be besides a node's id; no id holds a space, but `failed` could be one.
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class RerunPlan:
    """By node id, why its output is reused, why it runs again, and why it stays FAILED.

    `left_out` are nodes without an output that a rerun from one node has no business with.
    """

    execution_id: str
    plan: Plan
    reused: Mapping[str, str]
    runs: Mapping[str, str]
    left_out: Mapping[str, str]


async def plan_rerun(store: Store, execution_id: str, start: str) -> RerunPlan:
    """What a rerun would do. `start` is the node to begin with, or `failed` for all that has no
    output. Raises UnknownExecution, UnknownNode, and WrongState unless the execution has ended.
    """
    status = await store.executions.execution_status(execution_id)
    if not status.is_terminal:
        raise WrongState(execution_id, status, "rerun")
    plan = await Plans(store).load(execution_id, "")
    states = await store.executions.node_states(execution_id)
    if start in plan.nodes:
        runs = _runs_from(plan, states, start)
    elif start == FAILED:
        runs = {one: f"was {states[one]}" for one in plan.nodes if not _is_done(states, one)}
    else:
        raise UnknownNode(execution_id, start)
    return _sort_out(execution_id, plan, states, runs)


def _runs_from(plan: Plan, states: Mapping[str, NodeState], start: str) -> dict[str, str]:
    """The node, what it cannot do without, and all that can run behind those.

    A node behind them that also waits for one that is left out could not run, and is left out too.
    """
    runs = {start: "asked for"}
    upstream = [start]
    while upstream:
        for one in plan.nodes[upstream.pop()].dependencies:
            if one not in runs and not _is_done(states, one):
                runs[one] = f"was {states[one]}, and {start!r} needs its output"
                upstream.append(one)
    behind = list(runs)
    while behind:
        above = behind.pop()
        for one in plan.dependents(above):
            needed = plan.nodes[one].dependencies
            if one not in runs and all(each in runs or _is_done(states, each) for each in needed):
                runs[one] = f"downstream of {above!r}, which runs"
                behind.append(one)
    return runs


def _is_done(states: Mapping[str, NodeState], node_id: str) -> bool:
    return states[node_id] is NodeState.COMPLETED


def _sort_out(
    execution_id: str, plan: Plan, states: Mapping[str, NodeState], runs: Mapping[str, str]
) -> RerunPlan:
    reused: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for node_id in plan.nodes:
        if node_id not in runs and _is_done(states, node_id):
            reused[node_id] = "completed, and nothing it depends on runs again"
        elif node_id not in runs:
            left_out[node_id] = _why_left_out(plan.nodes[node_id], states, runs)
    in_order = {node_id: runs[node_id] for node_id in plan.nodes if node_id in runs}
    return RerunPlan(execution_id, plan, reused, in_order, left_out)


def _why_left_out(
    node: PlannedNode, states: Mapping[str, NodeState], runs: Mapping[str, str]
) -> str:
    for one in node.dependencies:
        if one not in runs and not _is_done(states, one):
            return f"needs the output of {one!r}, which is not asked for"
    return f"was {states[node.id]}, and is not asked for"


async def rerun_execution(
    store: Store, wanted: RerunPlan, execution_id: str = "", key_digest: str = ""
) -> str:
    """Make the new execution; its id, which the caller may have chosen, and claimed for a key. It
    has the definition and the input of the old one.

    Raises WrongState when no node would run, UnknownExecution when the old one has been deleted.
    """
    if not wanted.runs:
        hint = ", and so is each of its nodes; name the node to begin with"
        raise WrongState(wanted.execution_id, ExecutionState.COMPLETED, "rerun", hint)
    plan = wanted.plan
    open_nodes = [plan.nodes[node_id] for node_id in wanted.runs]
    reuse = Reuse(
        wanted.execution_id,
        frozenset(wanted.reused),
        {one: _left_out_output(why) for one, why in wanted.left_out.items()},
        tuple(node.id for node in open_nodes if not _waits_for(node, wanted)),
        {node.id: _arrived(node, wanted) for node in open_nodes if _is_half_open(node, wanted)},
    )
    definition = await store.executions.definition(wanted.execution_id)
    return await store.submissions.submit_workflow(
        definition, plan, execution_id=execution_id, key_digest=key_digest, reuse=reuse
    )


def _left_out_output(why: str) -> bytes:
    return error_output(f"not run: it {why}")


def _waits_for(node: PlannedNode, wanted: RerunPlan) -> bool:
    return any(one in wanted.runs for one in node.dependencies)


def _arrived(node: PlannedNode, wanted: RerunPlan) -> int:
    return sum(one in wanted.reused for one in node.dependencies)


def _is_half_open(node: PlannedNode, wanted: RerunPlan) -> bool:
    return 0 < _arrived(node, wanted) < len(node.dependencies)
