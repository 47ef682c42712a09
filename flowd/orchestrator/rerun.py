"""Run an execution that has ended again: from a node on, or what failed; the rest is reused."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from flowd.errors import UnknownNode, WrongState
from flowd.orchestrator.plans import Plans
from flowd.store import Store
from flowd.store.executions import Reuse
from flowd.workflow.graph import Plan, PlannedNode
from flowd.workflow.states import ExecutionState, NodeState

# What `start` may be besides a node's id; no id holds a space, but `failed` could be one.
FAILED: Final = "failed"


@dataclass(frozen=True, slots=True)
class RerunPlan:
    """By node id, why its output is reused, and why it runs again."""

    execution_id: str
    plan: Plan
    reused: Mapping[str, str]
    runs: Mapping[str, str]


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
        wanted = dict.fromkeys(plan.downstream(start), f"downstream of {start!r}")
        wanted[start] = "asked for"
    elif start == FAILED:
        wanted = {}
    else:
        raise UnknownNode(execution_id, start)
    return _sort_out(execution_id, plan, states, wanted)


def _sort_out(
    execution_id: str, plan: Plan, states: Mapping[str, NodeState], wanted: Mapping[str, str]
) -> RerunPlan:
    reused: dict[str, str] = {}
    runs: dict[str, str] = {}
    for node_id in plan.nodes:
        if node_id in wanted:
            runs[node_id] = wanted[node_id]
        elif states[node_id] is NodeState.COMPLETED:
            reused[node_id] = "completed, and nothing it depends on runs again"
        else:
            runs[node_id] = f"was {states[node_id]}"
    return RerunPlan(execution_id, plan, reused, runs)


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
        tuple(node.id for node in open_nodes if not _waits_for(node, wanted)),
        {node.id: _arrived(node, wanted) for node in open_nodes if _is_half_open(node, wanted)},
    )
    definition = await store.executions.definition(wanted.execution_id)
    return await store.executions.submit_workflow(
        definition, plan, execution_id=execution_id, key_digest=key_digest, reuse=reuse
    )


def _waits_for(node: PlannedNode, wanted: RerunPlan) -> bool:
    return any(one in wanted.runs for one in node.dependencies)


def _arrived(node: PlannedNode, wanted: RerunPlan) -> int:
    return sum(one in wanted.reused for one in node.dependencies)


def _is_half_open(node: PlannedNode, wanted: RerunPlan) -> bool:
    return 0 < _arrived(node, wanted) < len(node.dependencies)
