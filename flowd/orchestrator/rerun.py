"""Run an execution that has ended again: from a node on, or what failed; the rest is reused."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Final

from flowd.errors import UnknownExecution, UnknownNode, WrongState
from flowd.orchestrator.executor import error_output, trigger_workflow
from flowd.orchestrator.pinning import pin_versions
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.versions import expect_no_older_process
from flowd.store import Store
from flowd.store.idempotency import Claimed
from flowd.store.making import Reuse
from flowd.store.map_copies import Again
from flowd.store.origins import Origin
from flowd.workflow.choices import FAILED as FAILED_ARRIVAL
from flowd.workflow.choices import SKIPPED
from flowd.workflow.corrections import Correction, correct
from flowd.workflow.graph import Plan, PlannedNode
from flowd.workflow.ids import split_item
from flowd.workflow.states import ExecutionState, NodeState

# What `start` may be besides a node's id; no id holds a space, but `failed` could be one.
FAILED: Final = "failed"


class Standing(StrEnum):
    """What is left of a node of an execution that has ended."""

    COMPLETED = "completed"
    SKIPPED = "skipped"
    # It failed by itself, and may.
    ALLOWED = "allowed"
    FAILED = "failed"
    OPEN = "open"

    @property
    def is_settled(self) -> bool:
        """Its dependents can run with what it has left."""
        return self not in (Standing.FAILED, Standing.OPEN)


_ARRIVES: Final[Mapping[Standing, int]] = {
    Standing.COMPLETED: 1,
    Standing.ALLOWED: 1,
    Standing.SKIPPED: SKIPPED,
    Standing.FAILED: FAILED_ARRIVAL,
    Standing.OPEN: FAILED_ARRIVAL,
}
_REUSED_BECAUSE: Final[Mapping[Standing, str]] = {
    Standing.COMPLETED: "completed, and nothing it depends on runs again",
    Standing.SKIPPED: "skipped, and nothing it depends on runs again",
    Standing.ALLOWED: "failed, as it may, and nothing it depends on runs again",
}


@dataclass(frozen=True, slots=True)
class RerunPlan:
    """By node id, why its output is reused, why it runs again, and why it stays FAILED.

    `left_out` are nodes without an output that a rerun from one node has no business with. `maps`
    says of nodes with `map` which items run again; it leaves out those that read their list anew.
    `definition` is the corrected one, if there is one, and `plan` is that of what is to run.
    """

    execution_id: str
    plan: Plan
    standings: Mapping[str, Standing]
    reused: Mapping[str, str]
    runs: Mapping[str, str]
    left_out: Mapping[str, str]
    maps: Mapping[str, Again]
    correction: Correction | None = None
    definition: bytes | None = None
    is_of_failed: bool = False


async def plan_rerun(
    store: Store, execution_id: str, start: str, corrected: bytes | None = None
) -> RerunPlan:
    """What a rerun would do. `start` is the node to begin with, or `failed` for all that failed and
    what is downstream. With a `corrected` definition (as it is stored) that is what runs: what it
    changed and added runs, too.

    Raises UnknownExecution, UnknownNode, WrongState unless it has ended, and InvalidWorkflow for a
    corrected one that runs what is not saved.
    """
    status = await store.executions.execution_status(execution_id)
    if not status.is_terminal:
        raise WrongState(execution_id, status, "rerun")
    plans = Plans(store)
    plan = await plans.load(execution_id, "")
    states = await store.executions.node_states(execution_id)
    correction = None
    if corrected is not None:
        correction = await _correct(store, execution_id, corrected, states)
        corrected = await pin_versions(store, corrected)
        plan = await plans.of_definition(execution_id, corrected)
        states = {one: states.get(one, NodeState.PENDING) for one in plan.nodes}
    standings = standings_of(states, await _allowed(store, execution_id, plan, states))
    node = plan.find(start)
    if node is None and start != FAILED:
        raise UnknownNode(execution_id, start)
    if node and node.is_item:
        # What failed of its map runs, and it with that.
        above, index = split_item(start)
        standing = await store.nodes.maps.standing(execution_id, above)
        if standing is None or int(index) >= standing.n:
            raise UnknownNode(execution_id, start)
        start_node: str | None = above
    else:
        start_node = node.id if node else None
    wanted = sort_out(execution_id, plan, states, standings, start_node, correction)
    wanted = replace(wanted, definition=corrected)
    return await _with_items(store, wanted, start) if plan.maps else wanted


async def _correct(
    store: Store, execution_id: str, corrected: bytes, states: Mapping[str, NodeState]
) -> Correction:
    definition = await store.executions.definition(execution_id)
    given_input = await store.executions.listing.given_input(execution_id)
    unwell = frozenset(one for one, state in states.items() if state is not NodeState.COMPLETED)
    return correct(definition, corrected, given_input or {}, unwell)


def sort_out(
    execution_id: str,
    plan: Plan,
    states: Mapping[str, NodeState],
    standings: Mapping[str, Standing],
    start: str | None,
    correction: Correction | None = None,
) -> RerunPlan:
    """What becomes of each node; `start` is None for all that failed."""
    changes = _changes(correction, states, standings) if correction else {}
    if start is not None:
        runs = _runs_from(plan, standings, states, {start: "asked for"} | changes)
    else:
        unsettled = [one for one in plan.nodes if not standings[one].is_settled]
        runs = _with_downstream(plan, {one: f"was {states[one]}" for one in unsettled} | changes)
    if runs:
        again = "of `finally`, which always runs again"
        runs |= {one: again for one in plan.finally_nodes if one not in runs}
    wanted = _sort_out(execution_id, plan, states, standings, runs, correction)
    return replace(wanted, is_of_failed=start is None)


def _changes(
    correction: Correction, states: Mapping[str, NodeState], standings: Mapping[str, Standing]
) -> dict[str, str]:
    changed = {
        one: why if standings[one].is_settled else f"was {states[one]}, and {why}"
        for one, why in correction.changed.items()
    }
    return changed | dict.fromkeys(correction.new, "new")


async def _with_items(store: Store, wanted: RerunPlan, start: str) -> RerunPlan:
    """With what becomes of the items of nodes with `map`, and how many of them run."""
    maps: dict[str, Again] = {}
    runs = dict(wanted.runs)
    for node_id in wanted.plan.maps:
        if node_id in wanted.reused:
            maps[node_id] = "none"
        elif _keeps_its_list(wanted, node_id, runs):
            is_anew = (
                node_id == start
                or (wanted.correction and node_id in wanted.correction.changed)
                or runs.keys() & set(wanted.plan.nodes[node_id].dependencies)
            )
            maps[node_id] = "all" if is_anew else "failed"
        if maps.get(node_id) == "failed":
            standing = await store.nodes.maps.standing(wanted.execution_id, node_id)
            if standing is not None:
                left = standing.n - standing.ended + standing.failed
                runs[node_id] += f"; {left} of its {standing.n} items run"
    return replace(wanted, maps=maps, runs=runs)


def _keeps_its_list(wanted: RerunPlan, node_id: str, runs: Mapping[str, str]) -> bool:
    """It runs, and what its list comes from does not. `finally` has other things to clean up."""
    plan, correction = wanted.plan, wanted.correction
    is_last = node_id in plan.finally_nodes
    if correction and (node_id in correction.lists or node_id in correction.new):
        return False
    return node_id in runs and not is_last and not runs.keys() & plan.nodes[node_id].config.inputs


async def _allowed(
    store: Store, execution_id: str, plan: Plan, states: Mapping[str, NodeState]
) -> Collection[str]:
    may_fail = [one.id for one in plan.nodes.values() if one.allow_failure]
    failed = [one for one in may_fail if states[one] is NodeState.FAILED]
    return await store.nodes.allowed_failures(execution_id, failed)


def standings_of(states: Mapping[str, NodeState], allowed: Collection[str]) -> dict[str, Standing]:
    """`allowed` are those of the FAILED that failed by themselves, and may."""
    by_state = {
        NodeState.COMPLETED: Standing.COMPLETED,
        NodeState.SKIPPED: Standing.SKIPPED,
        NodeState.FAILED: Standing.FAILED,
    }
    return {
        one: Standing.ALLOWED if one in allowed else by_state.get(state, Standing.OPEN)
        for one, state in states.items()
    }


def _with_downstream(plan: Plan, runs: dict[str, str]) -> dict[str, str]:
    """Whatever has a node upstream that runs again decides again, too."""
    pending = list(runs)
    while pending:
        above = pending.pop()
        for one in plan.dependents(above):
            if one not in runs:
                runs[one] = f"downstream of {above!r}, which runs"
                pending.append(one)
    return runs


def _runs_from(
    plan: Plan,
    standings: Mapping[str, Standing],
    states: Mapping[str, NodeState],
    starts: Mapping[str, str],
) -> dict[str, str]:
    """The nodes, what they cannot do without, and all that can run behind those.

    A node behind them that also waits for one that is left out could not run, and is left out too.
    """
    runs = dict(starts)
    upstream = [(one, one) for one in starts]
    while upstream:
        below, start = upstream.pop()
        reader = plan.nodes[below]
        for one in reader.dependencies:
            if one not in runs and not _bears(reader, standings[one]):
                runs[one] = f"was {states[one]}, and {start!r} needs its output"
                upstream.append((one, start))
    behind = list(runs)
    while behind:
        above = behind.pop()
        for one in plan.dependents(above):
            node = plan.nodes[one]
            needed = [each for each in node.dependencies if each not in runs]
            if one not in runs and all(_bears(node, standings[each]) for each in needed):
                runs[one] = f"downstream of {above!r}, which runs"
                behind.append(one)
    return runs


def _bears(node: PlannedNode, standing: Standing) -> bool:
    """Whether a node can run, or decide that it does not, with a dependency that stands so."""
    return standing.is_settled or (standing is Standing.FAILED and _follows_failures(node))


def _follows_failures(node: PlannedNode) -> bool:
    return node.choice is not None and node.choice.after != "completed"


def _sort_out(
    execution_id: str,
    plan: Plan,
    states: Mapping[str, NodeState],
    standings: Mapping[str, Standing],
    runs: Mapping[str, str],
    correction: Correction | None,
) -> RerunPlan:
    reused: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for node_id, node in plan.nodes.items():
        if node_id in runs:
            continue
        if standings[node_id].is_settled:
            unchanged = "unchanged, " if correction else ""
            reused[node_id] = unchanged + _REUSED_BECAUSE[standings[node_id]]
        else:
            left_out[node_id] = _why_left_out(node, states, standings, runs)
    in_order = {node_id: runs[node_id] for node_id in plan.nodes if node_id in runs}
    return RerunPlan(execution_id, plan, standings, reused, in_order, left_out, {}, correction)


def _why_left_out(
    node: PlannedNode,
    states: Mapping[str, NodeState],
    standings: Mapping[str, Standing],
    runs: Mapping[str, str],
) -> str:
    for one in node.dependencies:
        if one not in runs and not standings[one].is_settled:
            return f"needs the output of {one!r}, which is not asked for"
    return f"was {states[node.id]}, and is not asked for"


async def run_again(
    store: Store,
    wanted: RerunPlan,
    claimed: Claimed,
    *,
    claimant: str = "",
    is_triggered: bool = True,
    traceparent: str = "",
) -> None:
    """Make the new execution, whose id is claimed, and start it: once, however often it is said,
    and not again where it was deleted since. Raises as `rerun_execution`, and LimitReached.
    """
    execution_id = claimed.execution_id
    if claimed.is_deleted:
        return
    try:
        await rerun_execution(store, wanted, execution_id, claimed.key_digest, claimant)
        if is_triggered:
            await trigger_workflow(store, execution_id, traceparent=traceparent)
    except UnknownExecution as error:
        if error.execution_id != execution_id:
            raise


async def rerun_execution(
    store: Store,
    wanted: RerunPlan,
    execution_id: str = "",
    key_digest: str = "",
    claimant: str = "",
) -> str:
    """Make the new execution; its id, which the caller may have chosen, and claimed for a key, or
    for the `claimant`, of whom it is one. It has the definition of the old one, if there is no
    corrected one, and its input.

    Raises WrongState when no node would run, UnknownExecution when the old one has been deleted,
    and OlderProcess.
    """
    if not wanted.runs:
        hint = ", and so is each of its nodes; name the node to begin with"
        if wanted.correction:
            hint = ", and the corrected definition changes no output; name the node to begin with"
        raise WrongState(wanted.execution_id, ExecutionState.COMPLETED, "rerun", hint)
    await expect_no_older_process(store, wanted.plan.language)
    definition = wanted.definition or await store.executions.definition(wanted.execution_id)
    return await store.submissions.submit_workflow(
        definition,
        wanted.plan,
        execution_id=execution_id,
        key_digest=key_digest,
        claimant=claimant,
        reuse=await reuse_of(store, wanted),
        origin=await _origin(store, wanted),
    )


async def _origin(store: Store, wanted: RerunPlan) -> Origin:
    """A rerun is of the same saved definition and the same time of a schedule, and has the labels
    its execution was given."""
    source = await store.executions.listing.origin(wanted.execution_id)
    own = {
        name: value
        for name, value in source.labels.items()
        if wanted.plan.labels.get(name) != value
    }
    # A corrected one is that of no version.
    definition = "" if wanted.definition else source.definition
    return source._replace(labels=own, definition=definition)


async def reuse_of(store: Store, wanted: RerunPlan) -> Reuse:
    kept: dict[Standing, list[str]] = {standing: [] for standing in Standing}
    for node_id in wanted.reused:
        kept[wanted.standings[node_id]].append(node_id)
    reasons = await store.nodes.skip_reasons(wanted.execution_id, kept[Standing.SKIPPED])
    open_nodes = [wanted.plan.nodes[node_id] for node_id in wanted.runs]
    arrived = {node.id: _arrived(node, wanted) for node in open_nodes}
    return Reuse(
        wanted.execution_id,
        frozenset(kept[Standing.COMPLETED]),
        {one: _left_out_output(why) for one, why in wanted.left_out.items()},
        tuple(node.id for node in open_nodes if _is_root(node, wanted)),
        {node.id: arrived[node.id] for node in open_nodes if _looks_at(node, arrived[node.id])},
        {one: reasons.get(one, "") for one in kept[Standing.SKIPPED]},
        frozenset(kept[Standing.ALLOWED]),
        wanted.maps,
        wanted.is_of_failed,
    )


def _left_out_output(why: str) -> bytes:
    return error_output(f"not run: it {why}")


def _is_root(node: PlannedNode, wanted: RerunPlan) -> bool:
    waits = any(one in wanted.runs for one in node.dependencies)
    return not waits and node.id not in wanted.plan.finally_nodes


def _arrived(node: PlannedNode, wanted: RerunPlan) -> int:
    """The number that stands for what has arrived from nodes that do not run again."""
    settled = (one for one in node.dependencies if one not in wanted.runs)
    return sum(_ARRIVES[wanted.standings[one]] for one in settled)


def _looks_at(node: PlannedNode, arrived: int) -> bool:
    """Whether the scripts or the claimer will read that number."""
    return arrived > 0 and (node.choice is not None or arrived < len(node.dependencies))
