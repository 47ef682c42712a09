"""Prove that every execution can still move, and mend the one that cannot.

No transition leaves a node behind; a hand in the keys, a restored backup or a defect might.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flowd.errors import CorruptExecution
from flowd.log import get_logger
from flowd.orchestrator.executor import follow
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.portions import DEFINITION_BYTES_MAX, portions
from flowd.orchestrator.recovery import recover_unheld
from flowd.scheduler.child_check import NO_CHILDREN, ChildCheck, check_children
from flowd.scheduler.duty import Duty
from flowd.scheduler.map_check import check_map
from flowd.scheduler.wakers import has_waker
from flowd.store import Store
from flowd.store.entries import Entry
from flowd.store.executions import parse_states
from flowd.workflow.definition import MAP_CONCURRENCY_MAX
from flowd.workflow.states import CANCELLING, ExecutionState, NodeState

log = get_logger(__name__)

RECONCILE_EVERY_S: Final = 60.0
# With very many nodes a round takes seconds of a core: the rounds are then so far apart that it is
# a quarter of a percent of one, but never more than ten minutes.
CORE_SHARE_MAX: Final = 0.0025
REST_S_MAX: Final = 600.0
# However much there is to look at, a slice of it ends soon after.
BUDGET_S: Final = 0.2
EXECUTIONS_PER_SLICE: Final = 100
# What is read together: definitions may be large, and have many nodes.
NODES_MAX: Final = 5_000
# Far more than are ever open at once; read in one call so that none is missed between two.
_CONTINUATIONS_MAX: Final = 10_000
# Each of these nodes has one entry, in the stream or among the dates, or who comes without one.
_OUTSTANDING: Final = frozenset(
    {NodeState.QUEUED, NodeState.RUNNING, NodeState.RETRYING, NodeState.WAITING}
)
_LIVE: Final = frozenset({ExecutionState.RUNNING, ExecutionState.PAUSED, CANCELLING})

_NodeKey = tuple[str, str]


@dataclass(slots=True)
class _Round:
    """One walk over all active executions, against the entries that stood through the walk before.

    `entries` has the node ids that have one, by execution, `dated` those of them that wait for a
    date, `maps` the nodes with `map`; `parents` are the executions that may have children.
    """

    entries: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    dated: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    continuing: set[str] = field(default_factory=set)
    paused: set[str] = field(default_factory=set)
    missing: dict[_NodeKey, tuple[NodeState, str | None]] = field(default_factory=dict)
    stuck: dict[str, Counter[NodeState]] = field(default_factory=dict)
    maps: dict[str, tuple[str, ...]] = field(default_factory=dict)
    parents: set[str] = field(default_factory=set)

    def has_entry(self, execution_id: str, node_id: str) -> bool:
        return node_id in self.entries.get(execution_id, ())


class Reconciler(Duty):
    """Checks that each node that is to run has an entry, a bounded slice at a time.

    A node without an entry when the round began may have been given one since. What is suspected
    in two rounds running, and did not move in between, is certain and is mended: its entry would
    have stood all the while, so no walk over them could have missed it, however long it took.
    """

    name = "reconciliation"
    every_s = RECONCILE_EVERY_S

    def __init__(self, store: Store, plans: Plans) -> None:
        self._store = store
        self._plans = plans
        self._forget()

    def _forget(self) -> None:
        # With its walk, which is suspended between two slices: it is its own cursor.
        self._round: tuple[_Round, AsyncIterator[None]] | None = None
        self._missing: dict[_NodeKey, tuple[NodeState, str | None]] = {}
        self._stuck: dict[str, Counter[NodeState]] = {}
        self._spent_s = 0.0

    async def run(self, _now_s: float) -> float | None:
        """A round at start and every minute, and one right behind it when it suspects something."""
        begun_s = time.process_time()
        is_quiet = await self.run_slice()
        self._spent_s += time.process_time() - begun_s
        if not is_quiet:
            return 0.0
        rest_s = min(self._spent_s / CORE_SHARE_MAX, REST_S_MAX)
        self._spent_s = 0.0
        return max(self.every_s, rest_s)

    def begin_anew(self) -> None:
        """Two rounds from now on: one that was under way as the second would leave out the first,
        and what it suspects would wait for a minute."""
        self._forget()
        self.hurry()

    async def run_slice(self) -> bool:
        """Check the next slice; True when no further round has to follow at once."""
        end_s = time.monotonic() + BUDGET_S
        if self._round is None:
            this = _Round()
            self._round = this, self._walk(this)
        this, walk = here = self._round
        try:
            async for _ in walk:
                if time.monotonic() > end_s:
                    return False
        except BaseException:
            # A walk that has raised is at its end.
            self._round = None
            raise
        if self._round is not here:
            return False
        is_second = bool(self._missing or self._stuck)
        self._missing, self._stuck, self._round = this.missing, this.stuck, None
        return is_second or not (self._missing or self._stuck)

    async def _walk(self, this: _Round) -> AsyncIterator[None]:
        """A whole round. Yields wherever it may be interrupted."""
        async for _ in self._read_entries(this):
            yield
        continuations = await self._store.executions.continuations(_CONTINUATIONS_MAX)
        this.continuing = {one.execution_id for one in continuations}
        for node_key, seen in self._missing.items():
            if not this.has_entry(*node_key):
                await self._restore_node(node_key, *seen)
                yield
        cursor = "0"
        while True:
            cursor, execution_ids = await self._store.executions.active_slice(
                cursor, EXECUTIONS_PER_SLICE
            )
            async for _ in self._check_executions(this, execution_ids):
                yield
            if cursor == "0":
                return

    async def _read_entries(self, this: _Round) -> AsyncIterator[None]:
        """Also requeues those that were handed out and that nobody holds, and drops those of
        cancelled and deleted executions where no worker will meet them."""
        delivered: list[str] = []
        unread = await self._store.tasks.queues.unread()
        async for page in self._store.tasks.outstanding():
            left = []
            for entry, is_delivered in page:
                if isinstance(entry, Entry):
                    this.entries[entry.execution_id].add(entry.node_id)
                    if not is_delivered and entry.queue in unread:
                        left.append(entry)
                if is_delivered:
                    delivered.append(entry.name)
            await self._store.tasks.drop_ended(left)
            yield
        await recover_unheld(self._store, self._plans, delivered)
        async for waiting in self._store.retries.waiting_pages():
            for execution_id, node_id in waiting:
                this.entries[execution_id].add(node_id)
                this.dated[execution_id].add(node_id)
            yield

    async def _restore_node(self, node_key: _NodeKey, state: NodeState, record: str | None) -> None:
        execution_id, node_id = node_key
        try:
            is_restored = await self._store.executions.restore_node(
                execution_id, node_id, state=state, record=record
            )
        except CorruptExecution as error:
            await self._fail_execution(execution_id, str(error))
            return
        if is_restored:
            log.warning("node.restored", execution_id=execution_id, node_id=node_id)

    async def _check_executions(
        self, this: _Round, execution_ids: Sequence[str]
    ) -> AsyncIterator[None]:
        sizes = await self._store.health.inspection.definition_sizes(execution_ids)
        for some in portions(dict(zip(execution_ids, sizes, strict=True)), DEFINITION_BYTES_MAX):
            nodes = await self._read_nodes(this, some)
            counts = {
                execution_id: len(node_ids)
                + MAP_CONCURRENCY_MAX * len(this.maps.get(execution_id, ()))
                for execution_id, node_ids in nodes.items()
            }
            for part in portions(counts, NODES_MAX):
                await self._check_nodes(this, {one: nodes[one] for one in part})
                yield
            yield

    async def _read_nodes(
        self, this: _Round, execution_ids: Sequence[str]
    ) -> dict[str, Sequence[str]]:
        """The node ids of each that can be read; the others are failed."""
        stored = await self._store.executions.statuses_and_definitions(execution_ids)
        node_ids: dict[str, Sequence[str]] = {}
        for execution_id, (status, definition) in zip(execution_ids, stored, strict=True):
            try:
                if status not in _LIVE or definition is None:
                    raise CorruptExecution(execution_id, "its status or definition is damaged")
                if status == ExecutionState.PAUSED:
                    this.paused.add(execution_id)
                plan = self._plans.compile(execution_id, definition)
                node_ids[execution_id] = tuple(plan.nodes)
                if plan.maps:
                    this.maps[execution_id] = plan.maps
                if plan.has_children:
                    this.parents.add(execution_id)
            except CorruptExecution as error:
                await self._fail_execution(execution_id, str(error))
        return node_ids

    async def _check_nodes(self, this: _Round, node_ids: Mapping[str, Sequence[str]]) -> None:
        found = await self._store.executions.states_of_nodes(node_ids)
        for execution_id, states in found.items():
            try:
                await self._check_execution(this, execution_id, states)
            except CorruptExecution as error:
                await self._fail_execution(execution_id, str(error))

    async def _check_execution(
        self, this: _Round, execution_id: str, found: Mapping[str, str | None]
    ) -> None:
        states = parse_states(execution_id, found)
        outstanding = [one for one, state in states.items() if state in _OUTSTANDING]
        children = NO_CHILDREN
        if execution_id in this.parents:
            children = await self._check_children(execution_id)
        if execution_id in this.maps:
            woken = await self._check_maps(this, execution_id, states, children)
            expected = [one for one in outstanding if one not in woken]
        else:
            expected = outstanding
        await self._note_missing(this, execution_id, states, expected, children)
        if not outstanding and execution_id not in this.continuing | this.paused:
            await self._suspect_stuck(this, execution_id, Counter(states.values()))

    async def _note_missing(
        self,
        this: _Round,
        execution_id: str,
        states: Mapping[str, NodeState],
        outstanding: Sequence[str],
        children: ChildCheck,
    ) -> None:
        lost = [one for one in outstanding if not this.has_entry(execution_id, one)]
        waiting = [one for one in lost if states[one] is NodeState.WAITING]
        if waiting:
            waits = await self._store.tasks.waits.records(execution_id, waiting)
            decisions = await self._store.tasks.waits.decisions(execution_id, waiting)
            queued = await self._store.tasks.limits.queued(execution_id, waits)
            proven = {
                one
                for one in waiting
                if has_waker(waits[one], decisions[one], children.live, is_queued=one in queued)
            }
            lost = [one for one in lost if one not in proven]
        if lost:
            records = await self._store.executions.attempts(execution_id, lost)
            for node_id, record in zip(lost, records, strict=True):
                this.missing[execution_id, node_id] = (states[node_id], record)

    async def _check_children(self, execution_id: str) -> ChildCheck:
        check = await check_children(self._store, execution_id)
        if check.has_orphans:
            log.warning("children.orphaned", execution_id=execution_id)
            await follow(self._store, execution_id)
        lost = sorted(check.lost)
        records = await self._store.executions.attempts(execution_id, lost) if lost else []
        for node_id, record in zip(lost, records, strict=True):
            # What ends a child wakes its node in the same call: one look is enough.
            await self._restore_node((execution_id, node_id), NodeState.WAITING, record)
        return check

    async def _check_maps(
        self,
        this: _Round,
        execution_id: str,
        states: Mapping[str, NodeState],
        children: ChildCheck,
    ) -> set[str]:
        """The nodes with `map` whose items will wake them. Items without an entry are noted as
        nodes are, those of a map of which nothing is left as a stuck execution."""
        entries, dated = this.entries.get(execution_id, set()), this.dated.get(execution_id, set())
        woken: set[str] = set()
        for node_id in this.maps[execution_id]:
            if states[node_id] not in _OUTSTANDING:
                continue
            paused = sum(one.startswith(f"{node_id}.") for one in dated)
            has_entry = entries.__contains__
            check = await check_map(self._store, execution_id, node_id, paused, has_entry)
            await self._note_missing(this, execution_id, check.lost, list(check.lost), children)
            if check.has_waker and states[node_id] is NodeState.WAITING:
                woken.add(node_id)
                if check.is_stuck and execution_id not in this.paused:
                    await self._suspect_stuck(this, execution_id, Counter(states.values()))
        return woken

    async def _suspect_stuck(
        self, this: _Round, execution_id: str, counts: Counter[NodeState]
    ) -> None:
        # The states of a large execution are read in several calls, and between two of them its
        # only outstanding node may move from what is not yet read to what has been.
        if self._stuck.get(execution_id) == counts:
            reason = "nothing of it is left to run, yet it has not ended"
            await self._fail_execution(execution_id, reason)
        else:
            this.stuck[execution_id] = counts

    async def _fail_execution(self, execution_id: str, reason: str) -> None:
        if await self._store.executions.fail_execution(execution_id, reason):
            log.error("execution.corrupt", execution_id=execution_id, reason=reason)
