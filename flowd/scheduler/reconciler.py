"""Prove that every execution can still move, and mend the one that cannot.

No transition leaves a node behind; a hand in the keys, a restored backup or a defect might.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

from flowd.errors import CorruptExecution
from flowd.log import get_logger
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import recover_orphans
from flowd.scheduler.duty import Duty
from flowd.store import Store
from flowd.store.executions import parse_states
from flowd.store.tasks import Entry
from flowd.workflow.states import ExecutionState, NodeState

log = get_logger(__name__)

RECONCILE_EVERY_S: Final = 60.0
# A definition may be large, and those of a slice are read together.
EXECUTIONS_PER_SLICE: Final = 100
# Far more than are ever open at once; read in one call so that none is missed between two.
_CONTINUATIONS_MAX: Final = 10_000
# Each of these nodes has one entry, in the stream or among the retries.
_OUTSTANDING: Final = frozenset({NodeState.QUEUED, NodeState.RUNNING, NodeState.RETRYING})
_LIVE: Final = frozenset({ExecutionState.RUNNING, ExecutionState.PAUSED})

_NodeKey = tuple[str, str]


@dataclass(slots=True)
class _Round:
    """One walk over all active executions, against the entries that stood when it began."""

    entries: set[_NodeKey]
    continuing: set[str]
    paused: set[str] = field(default_factory=set)
    cursor: str = "0"
    missing: dict[_NodeKey, tuple[NodeState, str | None]] = field(default_factory=dict)
    stuck: dict[str, Counter[NodeState]] = field(default_factory=dict)


class Reconciler(Duty):
    """Checks that each node that is to run has an entry, a bounded slice at a time.

    A node without an entry when the round began may have been given one since. What is suspected
    in two rounds running, and did not move in between, is certain and is mended.
    """

    name = "reconciliation"
    every_s = RECONCILE_EVERY_S

    def __init__(self, store: Store, plans: Plans) -> None:
        self._store = store
        self._plans = plans
        self._forget()

    def _forget(self) -> None:
        self._round: _Round | None = None
        self._missing: dict[_NodeKey, tuple[NodeState, str | None]] = {}
        self._stuck: dict[str, Counter[NodeState]] = {}

    async def run(self, _now_s: float) -> float | None:
        """A round at start and every minute, and one right behind it when it suspects something."""
        return None if await self.run_slice() else 0.0

    def begin_anew(self) -> None:
        """Two rounds from now on: one that was under way as the second would leave out the first,
        and what it suspects would wait for a minute."""
        self._forget()
        self.hurry()

    async def run_slice(self) -> bool:
        """Check the next slice; True when no further round has to follow at once."""
        if self._round is None:
            self._round = await self._begin_round()
        this = self._round
        this.cursor, execution_ids = await self._store.executions.active_slice(
            this.cursor, EXECUTIONS_PER_SLICE
        )
        await self._check_executions(this, execution_ids)
        if this.cursor != "0":
            return False
        is_second = bool(self._missing or self._stuck)
        self._missing, self._stuck, self._round = this.missing, this.stuck, None
        return is_second or not (self._missing or self._stuck)

    async def _begin_round(self) -> _Round:
        await recover_orphans(self._store, self._plans)
        entries: set[_NodeKey] = set()
        after = ""
        while page := await self._store.tasks.stream_page(after):
            entries.update(
                (entry.execution_id, entry.node_id) for _, entry in page if isinstance(entry, Entry)
            )
            after = page[-1][0]
        entries.update(await self._store.retries.waiting())
        continuations = await self._store.executions.continuations(_CONTINUATIONS_MAX)
        for node_key, seen in self._missing.items():
            if node_key not in entries:
                await self._restore_node(node_key, *seen)
        return _Round(entries, {one.execution_id for one in continuations})

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

    async def _check_executions(self, this: _Round, execution_ids: Sequence[str]) -> None:
        """Read the states of all their nodes in as few calls as it takes, then look at each."""
        stored = await self._store.executions.statuses_and_definitions(execution_ids)
        node_ids: dict[str, Sequence[str]] = {}
        for execution_id, (status, definition) in zip(execution_ids, stored, strict=True):
            try:
                if status not in _LIVE or definition is None:
                    raise CorruptExecution(execution_id, "its status or definition is damaged")
                if status == ExecutionState.PAUSED:
                    this.paused.add(execution_id)
                node_ids[execution_id] = tuple(self._plans.compile(execution_id, definition).nodes)
            except CorruptExecution as error:
                await self._fail_execution(execution_id, str(error))
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
        await self._note_missing(this, execution_id, states, outstanding)
        if not outstanding and execution_id not in this.continuing | this.paused:
            await self._suspect_stuck(this, execution_id, Counter(states.values()))

    async def _note_missing(
        self,
        this: _Round,
        execution_id: str,
        states: Mapping[str, NodeState],
        outstanding: Sequence[str],
    ) -> None:
        lost = [one for one in outstanding if (execution_id, one) not in this.entries]
        if lost:
            records = await self._store.executions.attempts(execution_id, lost)
            for node_id, record in zip(lost, records, strict=True):
                this.missing[execution_id, node_id] = (states[node_id], record)

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
