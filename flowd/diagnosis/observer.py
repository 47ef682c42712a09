"""Look at an execution and the cluster, to explain why it does not move."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final, NamedTuple

from flowd.diagnosis.explain import (
    METERED,
    Cluster,
    Explanation,
    Failures,
    Situation,
    explain,
)
from flowd.diagnosis.limit_check import places_waited_for
from flowd.diagnosis.phrases import unmade_text
from flowd.errors import CorruptExecution, UnknownNode
from flowd.handlers.simulation import SIMULATING, is_simulated
from flowd.orchestrator.items import find_item
from flowd.orchestrator.leases import LEASE_S, LeaseWatch
from flowd.orchestrator.owner import Owner
from flowd.orchestrator.plans import Plans
from flowd.store import Store
from flowd.store.budgets import Holds
from flowd.store.executions import NODES_PER_CALL_MAX, now_ms
from flowd.store.nodes import NodeRow
from flowd.store.standing import ClusterState
from flowd.workflow.graph import Plan
from flowd.workflow.ids import DEFAULT_QUEUE, split_item
from flowd.workflow.states import ExecutionState, NodeState

SHOWN_MAX: Final = 100
# A simulated answer repeats a url or a prompt.
SIMULATED_BYTES_MAX: Final = 4096
# A node that moves while it is looked at is looked at once more.
LOOKS_MAX: Final = 2

_URGENCY: Final[Mapping[NodeState | None, int]] = {
    None: 0,
    NodeState.RUNNING: 1,
    NodeState.RETRYING: 2,
    NodeState.QUEUED: 3,
    NodeState.WAITING: 4,
    NodeState.PENDING: 5,
}


class WorkerStanding(NamedTuple):
    """A worker, and how many nodes it holds. `dead` and `stalled` say why it is, None if it is not;
    `owner` is None where it has said nothing readable of itself."""

    name: str
    owner: Owner | None
    dead: str | None
    in_flight: int
    stalled: str | None


class Observer:
    """Remembers heartbeats from look to look: one that stands still shows only in time."""

    def __init__(self, store: Store, plans: Plans) -> None:
        self._store = store
        self._plans = plans
        self._watch = LeaseWatch()

    async def explain(self, execution_id: str, node_id: str | None = None) -> Explanation:
        """Why the nodes that are not done are not; or this one, done or not.

        Raises UnknownExecution, UnknownNode, or CorruptExecution when the definition is damaged.
        """
        situation = await self._look(execution_id, node_id)
        for _ in range(LOOKS_MAX - 1):
            if not situation.moved:
                break
            situation = await self._look(execution_id, node_id)
        explanation = explain(situation)
        return replace(explanation, summary=explanation.summary + await self._whose(execution_id))

    async def workers(self) -> list[WorkerStanding]:
        """All that have a lease, by name."""
        health = self._store.health
        state = await health.standing.cluster_state()
        held = await health.standing.in_flight()
        stalled = {one.what: one.reason for one in await health.troubles.workers()}
        dead = self._dead(state)
        return [
            WorkerStanding(
                one, _owner(state, one), dead.get(one), held.get(one, 0), stalled.get(one)
            )
            for one in sorted(state.leases)
        ]

    async def _whose(self, execution_id: str) -> str:
        """Who has made it, as a sentence; empty where somebody has submitted it."""
        if kin := await self._store.children.kin(execution_id):
            return f" It is the child of node {kin.node_id!r} of {kin.parent_id}."
        origin = await self._store.executions.listing.origin(execution_id)
        if origin.schedule:
            return f" The schedule {origin.schedule!r} has started it for {origin.scheduled_at}."
        return ""

    async def _look(self, execution_id: str, node_id: str | None) -> Situation:
        store = self._store
        status = await self._status(execution_id)
        plan = await self._plans.load(execution_id, "")
        states = await store.nodes.states(execution_id, list(plan.nodes))
        if node_id is not None and node_id not in plan.nodes:
            is_item = plan.find(node_id) is not None
            item = await find_item(store, execution_id, node_id) if is_item else None
            if item is None:
                raise UnknownNode(execution_id, node_id)
            states |= item.states
        open_nodes = _open_nodes(states)
        shown = open_nodes[:SHOWN_MAX] if node_id is None else [node_id]
        cluster_state = await store.health.standing.cluster_state()
        outstanding = [one for one in shown if states[one] in (NodeState.QUEUED, NodeState.RUNNING)]
        queue = await store.health.standing.queue(execution_id, plan.queues.each(outstanding))
        retrying = [one for one in shown if states[one] is NodeState.RETRYING]
        retries = await store.nodes.retries(execution_id, retrying)
        rows = await store.nodes.rows(execution_id, {one: states[one] for one in shown})
        rows = [await self._counted(execution_id, plan, row) for row in rows]
        holders = {place.holder for place in queue.places.values() if place.holder}
        holders |= {row.record.worker for row in rows if row.record.worker}
        again = await store.nodes.states(execution_id, shown)
        troubles = await store.health.troubles.continuations()
        return Situation(
            execution_id,
            status,
            now_ms(),
            plan,
            states,
            {row.node_id: row for row in rows},
            max(0, len(open_nodes) - len(shown)) if node_id is None else 0,
            queue,
            retries,
            replace(
                await self._cluster(cluster_state, holders, plan),
                budget=await self._budget(execution_id, plan, states, shown),
                places=await places_waited_for(store, execution_id, rows),
                place=await store.lifecycle.places.find(execution_id) if plan.concurrency else None,
            ),
            store.nodes.default_policy.max_attempts,
            {
                one: state
                for one, state in again.items()
                if state is not states[one] and (state is not None or one in plan.nodes)
            },
            await self._failures(execution_id, status, states, shown),
            tuple(one for one in troubles if one.is_about(execution_id)),
            await self._simulated(execution_id, plan, states),
        )

    async def _counted(self, execution_id: str, plan: Plan, row: NodeRow) -> NodeRow:
        """With the items of its map, where it is of one."""
        above, _ = split_item(row.node_id)
        if above not in plan.maps:
            return row
        return replace(row, items=await self._store.nodes.maps.counts(execution_id, above))

    async def _budget(
        self,
        execution_id: str,
        plan: Plan,
        states: Mapping[str, NodeState | None],
        shown: Sequence[str],
    ) -> Holds | None:
        asking = [
            one
            for one in shown
            if states[one] is NodeState.RUNNING and plan.node(one).handler in METERED
        ]
        if plan.budget_tokens is None or not asking:
            return None
        return await self._store.budgets.holds(execution_id, asking)

    async def _unmade(self, plan: Plan) -> str:
        asks = [node.map.item.asks if node.map else node.asks for node in plan.nodes.values()]
        named = {one.limit.name for one in asks if one and one.limit}
        if not named:
            return ""
        made = {one.name for one in await self._store.tasks.limits.all()}
        return unmade_text(sorted(named - made), made)

    async def _cluster(self, state: ClusterState, holders: set[str], plan: Plan) -> Cluster:
        dead = self._dead(state)
        no_lease = {one: "it has no lease" for one in holders if one not in state.leases}
        return Cluster(
            len(state.leases.keys() - dead.keys()),
            _queues_read(state, state.leases.keys() - dead.keys()),
            state.scheduler_ticked_ms is not None,
            state.is_full,
            no_lease | dead,
            await self._store.health.troubles.workers(),
            unmade=await self._unmade(plan),
        )

    async def _simulated(
        self, execution_id: str, plan: Plan, states: Mapping[str, NodeState | None]
    ) -> list[str]:
        """The nodes that have ended well and called nobody; of many the first."""
        nodes = self._store.nodes
        called = [
            one
            for one, state in states.items()
            if state is NodeState.COMPLETED and plan.node(one).handler in SIMULATING
        ][:NODES_PER_CALL_MAX]
        sizes = await nodes.output_sizes(execution_id, called)
        short = [
            one for one, size in zip(called, sizes, strict=True) if size <= SIMULATED_BYTES_MAX
        ]
        outputs = await nodes.outputs(execution_id, short)
        return [
            one for one, output in outputs.items() if is_simulated(plan.node(one).handler, output)
        ]

    async def _status(self, execution_id: str) -> ExecutionState | None:
        """None when it is damaged."""
        try:
            return await self._store.executions.execution_status(execution_id)
        except CorruptExecution:
            return None

    def _dead(self, state: ClusterState) -> dict[str, str]:
        """The consumers that have a lease and do not live, as far as can be told from here."""
        still = f"its heartbeat has stood still for {LEASE_S:.0f} s"
        dead = dict.fromkeys(self._watch.expired(state.leases, time.monotonic()), still)
        here = Owner.of_this_process().machine
        for consumer, text in state.owners.items():
            try:
                owner = Owner.from_json(text)
                is_gone = owner.machine == here and owner.is_gone()
            except (ValueError, TypeError, OSError):
                continue
            if is_gone:
                dead[consumer] = f"its process {owner.pid} has ended"
        return dead

    async def _failures(
        self,
        execution_id: str,
        status: ExecutionState | None,
        states: Mapping[str, NodeState | None],
        shown: Sequence[str],
    ) -> Failures:
        nodes = self._store.nodes
        first, error = None, None
        if status is ExecutionState.FAILED:
            _, details = await self._store.executions.listing.execution(execution_id)
            first = await self._first_failure(execution_id, states, details.failure or "")
            error = details.error
        failed = [one for one in shown if states[one] in (NodeState.FAILED, NodeState.RETRYING)]
        failed += [first.node_id] if first else []
        return Failures(first, error, await nodes.reports(execution_id, failed))

    async def _first_failure(
        self, execution_id: str, states: Mapping[str, NodeState | None], failure: str
    ) -> NodeRow | None:
        """A node that has failed by itself, and not as it may: the one that was noted first."""
        nodes = self._store.nodes
        noted = failure.partition(":")[0]
        if states.get(noted) is NodeState.FAILED:
            states = {noted: NodeState.FAILED}
        failed = [one for one, state in states.items() if state is NodeState.FAILED]
        allowed = await nodes.allowed_failures(execution_id, failed)
        portion = [one for one in failed if one not in allowed][:NODES_PER_CALL_MAX]
        records = await nodes.records(execution_id, portion)
        # Nodes that could not run because of others have no attempt.
        ran = [one for one in portion if records[one] is not None][:1]
        rows = await nodes.rows(execution_id, {one: states[one] for one in ran})
        return rows[0] if rows else None


def _owner(state: ClusterState, consumer: str) -> Owner | None:
    try:
        return Owner.from_json(state.owners.get(consumer, ""))
    except (ValueError, TypeError):
        return None


def _open_nodes(states: Mapping[str, NodeState | None]) -> Sequence[str]:
    """The nodes that are not done, those first that say most."""
    open_nodes = [one for one, state in states.items() if state is None or not state.is_terminal]
    return sorted(open_nodes, key=lambda one: _URGENCY[states[one]])


def _queues_read(state: ClusterState, alive: Iterable[str]) -> frozenset[str]:
    """By these consumers; who does not say what it reads is taken to read what all read once."""
    owners = (_owner(state, one) for one in alive)
    said = (owner.queues if owner else (DEFAULT_QUEUE,) for owner in owners)
    return frozenset(queue for queues in said for queue in queues)
