"""Why a node does not run: decisions over what was read, no look of its own.

Every reason has a stable code. The message says what the code stands for here, with the names and
numbers it comes from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from flowd.diagnosis.limit_check import PlaceStanding, describe_place
from flowd.diagnosis.phrases import (
    NO_SCHEDULER,
    NO_WORKER,
    STORE_FULL,
    TROUBLES,
    ahead,
    corrupt_text,
    listed,
    sentence,
    span,
    stall_text,
    trouble_text,
    unread_text,
    where_more_is,
)
from flowd.diagnosis.place_text import place_text
from flowd.store.budgets import Holds
from flowd.store.nodes import NO_REPORT, NodeRow, Report, RetryStanding
from flowd.store.places import Place
from flowd.store.standing import QueueView
from flowd.store.troubles import Trouble
from flowd.workflow.children import CHILD
from flowd.workflow.graph import Plan
from flowd.workflow.ids import split_item
from flowd.workflow.limiting import SLOT
from flowd.workflow.signals import SIGNAL
from flowd.workflow.states import ExecutionState, NodeState

# Handlers whose calls count against the budget of their execution.
METERED: Final = frozenset({"llm"})

_HEALED: Final = "; the scheduler mends that and queues the node again"


class Reason(NamedTuple):
    code: str
    message: str


class ExplainedNode(NamedTuple):
    node_id: str
    state: NodeState | None
    reasons: tuple[Reason, ...]
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Explanation:
    """`more` are the nodes that are not done and not in `nodes`; `traceback` is of the failure that
    the summary names."""

    execution_id: str
    status: ExecutionState | None
    summary: str
    nodes: tuple[ExplainedNode, ...]
    more: int
    traceback: str | None = None


@dataclass(frozen=True, slots=True)
class Cluster:
    """What would move an execution on: `queues_read` are those that workers which live read, `lost`
    says of consumers why they do not live, `stalled` has the workers that ask for no work."""

    workers_alive: int
    queues_read: frozenset[str]
    has_scheduler: bool
    is_store_full: bool
    lost: Mapping[str, str]
    stalled: Sequence[Trouble] = ()
    # None where no node that runs may wait for the budget.
    budget: Holds | None = None
    # What nodes wait for a place of.
    places: Mapping[str, PlaceStanding] = field(default_factory=dict)
    # Of limits that its nodes name and nobody has made, as sentences.
    unmade: str = ""
    # What it waits for before it starts, where its workflow has a `concurrency`.
    place: Place | None = None


@dataclass(frozen=True, slots=True)
class Failures:
    """`first` is a node that failed by itself, when the execution has failed, `error` what is said
    of it as a whole; `reports` are of nodes that have failed."""

    first: NodeRow | None = None
    error: str | None = None
    reports: Mapping[str, Report] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Situation:
    """What was read of an execution and around it.

    `states` has all nodes, `rows` those that are asked about, `moved` those of them that have gone
    on meanwhile, `simulated` those that have called nobody. `troubles` are what was begun of it
    and cannot be carried on.
    """

    execution_id: str
    status: ExecutionState | None
    now_ms: int
    plan: Plan
    states: Mapping[str, NodeState | None]
    rows: Mapping[str, NodeRow]
    more: int
    queue: QueueView
    retries: Mapping[str, RetryStanding]
    cluster: Cluster
    default_attempts: int
    moved: Mapping[str, NodeState | None]
    failures: Failures = Failures()
    troubles: Sequence[Trouble] = ()
    simulated: Sequence[str] = ()


def explain(situation: Situation) -> Explanation:
    return Explanation(
        situation.execution_id,
        situation.status,
        _summary(situation),
        tuple(
            ExplainedNode(
                node_id, row.state, _reasons(situation, row), _traceback(situation, node_id)
            )
            for node_id, row in situation.rows.items()
        ),
        situation.more,
        _traceback_of_the_failure(situation),
    )


def _traceback_of_the_failure(situation: Situation) -> str | None:
    """Of the one the summary names; who asks about a node gets that of the node."""
    if situation.failures.first is None or situation.rows:
        return None
    return _traceback(situation, situation.failures.first.node_id)


def _traceback(situation: Situation, node_id: str) -> str | None:
    return situation.failures.reports.get(node_id, NO_REPORT).traceback


def _reasons(situation: Situation, row: NodeRow) -> tuple[Reason, ...]:
    """The first is the nearest; there is always one."""
    status, state = situation.status, row.state
    if row.node_id in situation.moved:
        to = situation.moved[row.node_id]
        return (Reason("moving", f"it went from {state} to {to} while this was written"),)
    if state is None:
        return (Reason("corrupt", corrupt_text(situation.execution_id, row.node_id)),)
    if state.is_terminal:
        return (_ending(situation, row), *_simulated(situation, row))
    if status is None:
        return (Reason("corrupt", "the status of its execution is damaged"),)
    if status.is_terminal:
        return (Reason("execution_ended", f"its execution is {status}; it runs no more"),)
    if status is ExecutionState.PENDING:
        return _not_triggered(situation)
    return tuple(_EXPLAIN[state](situation, row))


def _ending(situation: Situation, row: NodeRow) -> Reason:
    if row.state is NodeState.COMPLETED:
        by = " by what an equal call put out, and was kept" if row.record.is_cached else _by(row)
        return Reason("completed", f"it is completed{by}")
    if row.state is NodeState.SKIPPED:
        return Reason("skipped", f"it was skipped: {row.reason or 'nothing says why'}")
    if row.state is NodeState.CANCELLED:
        return Reason("cancelled", "its execution was cancelled before it had ended")
    if failed := _failed_with(situation, row.node_id):
        return Reason("dependency_failed", row.error or f"not run: {listed(failed)} failed")
    if row.error and row.error.startswith("not run:"):
        return Reason("failed", row.error)
    return Reason("failed", f"it failed{_by(row)}: {row.error or 'nothing says why'}")


def _simulated(situation: Situation, row: NodeRow) -> Iterator[Reason]:
    if row.node_id in situation.simulated:
        handler = situation.plan.node(row.node_id).handler
        yield Reason("simulated", f"its answer is simulated: {handler} has called nobody")


def _by(row: NodeRow) -> str:
    return f", by attempt {row.record.attempt}" if row.record.attempt is not None else ""


def _not_triggered(situation: Situation) -> tuple[Reason, ...]:
    if situation.cluster.place is not None and situation.cluster.place.waits:
        return (Reason("limit_reached", place_text(situation.cluster.place, situation.now_ms)),)
    path = f"/workflow/trigger/{situation.execution_id}"
    reason = Reason("not_triggered", f"its execution was not triggered yet: POST {path}")
    full = Reason("store_full", STORE_FULL)
    return (reason, full) if situation.cluster.is_store_full else (reason,)


def _pending(situation: Situation, row: NodeRow) -> list[Reason]:
    states = situation.states
    reasons: list[Reason] = []
    node = situation.plan.node(row.node_id)
    if node.is_item:
        return _paused(situation) or [_window_full(situation, row)]
    dependencies = _waited_for(situation, row.node_id)
    if failed := _failed_with(situation, row.node_id):
        reasons.append(
            Reason("dependency_failed", f"{listed(failed)} failed; it is failed with it")
        )
    elif waits := [one for one in dependencies if not _has_ended(states.get(one))]:
        named = [f"{one} ({states.get(one) or 'damaged'})" for one in waits]
        reasons.append(Reason("waiting_for", f"waits for {listed(named)}"))
    elif situation.status is not ExecutionState.PAUSED:
        reasons.append(
            Reason("opening", "nothing holds it back; it is being put into the queue with others")
        )
    reasons += [Reason("set_aside", trouble_text(one)) for one in situation.troubles]
    return reasons + _paused(situation)


def _window_full(situation: Situation, row: NodeRow) -> Reason:
    above, _ = split_item(row.node_id)
    said = situation.plan.nodes[above].map
    places, waiting = said.concurrency if said else 0, (row.items or {}).get(NodeState.PENDING, 0)
    return Reason(
        "window_full",
        f"it waits for a place: at most {places:,} items of {above!r} are under way at a time, "
        f"and {waiting:,} wait for one",
    )


def _waited_for(situation: Situation, node_id: str) -> Sequence[str]:
    """Its dependencies; of a node of `finally` all others before it, until they have ended."""
    plan, states = situation.plan, situation.states
    if node_id in plan.finally_nodes:
        others = [one for one in plan.nodes if one not in plan.finally_nodes]
        if not all(_has_ended(states.get(one)) for one in others):
            return others
    return plan.nodes[node_id].dependencies


def _paused(situation: Situation) -> list[Reason]:
    if situation.status is not ExecutionState.PAUSED:
        return []
    path = f"/workflows/{situation.execution_id}/resume"
    return [Reason("paused", f"its execution is paused; no node starts until POST {path}")]


def _queued(situation: Situation, row: NodeRow) -> list[Reason]:
    reasons = _paused(situation)
    place = situation.queue.places.get(row.node_id)
    if situation.queue.trouble:
        reasons.append(_trouble(situation))
    elif place is None:
        reasons.append(_no_place(situation))
    elif place.ahead is not None:
        waited = span(situation.now_ms - place.entry.queued_ms)
        deaths = place.entry.deaths
        died = f"; {deaths} worker{'s' if deaths > 1 else ''} died with it" if deaths else ""
        reasons.append(
            Reason("queued", f"{ahead(place.ahead)} ahead of it; it has waited {waited}{died}")
        )
    elif place.holder is None:
        message = "it was given out by a consumer group that is gone"
        reasons.append(Reason("group_missing", message + _HEALED))
    elif place.holder in situation.cluster.lost:
        reasons.append(_worker_lost(situation, place.holder))
    else:
        reasons.append(Reason("taken", f"{place.holder} has taken it and is about to start it"))
    if place is None or place.ahead is not None:
        reasons += [Reason("worker_stalled", stall_text(one)) for one in situation.cluster.stalled]
    if situation.cluster.workers_alive == 0:
        reasons.append(Reason("no_worker", NO_WORKER))
    elif (queue := situation.plan.queues.of(row.node_id)) not in situation.cluster.queues_read:
        reasons.append(Reason("no_worker", unread_text([queue], situation.cluster.queues_read)))
    return reasons


def _trouble(situation: Situation) -> Reason:
    code = situation.queue.trouble
    return Reason(code, TROUBLES[code] + _HEALED)


def _no_place(situation: Situation) -> Reason:
    queue = situation.queue
    if queue.is_whole:
        return Reason("entry_missing", "it has no entry in the task stream" + _HEALED)
    return Reason("queued", f"more than {queue.ahead:,} entries are ahead of it")


def _running(situation: Situation, row: NodeRow) -> list[Reason]:
    queue, record = situation.queue, row.record
    place = queue.places.get(row.node_id)
    worker = (place.holder if place else None) or record.worker
    if queue.trouble:
        return [_trouble(situation), _runs(situation, row)]
    if place is None and queue.is_whole:
        return [_no_place(situation), _runs(situation, row)]
    if worker is not None and worker in situation.cluster.lost:
        return [_worker_lost(situation, worker)]
    return [*_budget(situation, row), _runs(situation, row)]


def _budget(situation: Situation, row: NodeRow) -> list[Reason]:
    holds, limit = situation.cluster.budget, situation.plan.budget_tokens
    is_asking = situation.plan.node(row.node_id).handler in METERED
    if holds is None or limit is None or not is_asking or row.node_id in holds.holders:
        return []
    if not holds.held:
        return []
    holding = f"{holds.held:,} of {limit:,} are held until they end, {holds.spent:,} are spent"
    return [Reason("waiting_for_budget", f"it waits for the tokens of other calls: {holding}")]


def _runs(situation: Situation, row: NodeRow) -> Reason:
    record = row.record
    since = ""
    if record.started_ms is not None:
        since = f" for {span(situation.now_ms - record.started_ms)}"
    attempt = f"attempt {record.attempt}" if record.attempt is not None else "it"
    return Reason("running", f"{attempt} has run on {record.worker or 'a worker'}{since}")


def _worker_lost(situation: Situation, worker: str) -> Reason:
    why = situation.cluster.lost[worker]
    return Reason("worker_lost", f"{worker} holds it, but {why}; another worker is given it soon")


def _retrying(situation: Situation, row: NodeRow) -> list[Reason]:
    retry = situation.retries.get(row.node_id)
    if retry is None:
        return [Reason("retrying", "it waits for its next attempt"), *_paused(situation)]
    own = situation.plan.node(row.node_id).retry or {}
    attempts = own.get("max_attempts", situation.default_attempts)
    error = (retry.error or "").removeprefix(f"attempt {retry.failures} of {attempts}: ")
    failed = f"attempt {retry.failures} of {attempts} failed" if retry.failures else "not yet"
    because = f": {error}" if error else ""
    reasons = [Reason("retrying", f"{failed}{because}; {_due(situation, retry)}")]
    is_late = retry.due_ms is None or retry.due_ms < situation.now_ms
    if is_late and not situation.cluster.has_scheduler:
        reasons.append(Reason("no_scheduler", NO_SCHEDULER))
    return reasons + _paused(situation)


def _due(situation: Situation, retry: RetryStanding) -> str:
    if retry.due_ms is None:
        return "nothing says when the next is due" + _HEALED
    left_ms = retry.due_ms - situation.now_ms
    if left_ms >= 0:
        return f"the next is due in {span(left_ms)}"
    return f"the next was due {span(-left_ms)} ago"


def _waiting(situation: Situation, row: NodeRow) -> list[Reason]:
    wait = row.wait
    if wait is None:
        return [Reason("waiting", "nothing says what it waits for" + _HEALED)]
    left = None if wait.until_ms is None else wait.until_ms - situation.now_ms
    code, what = _WAITS_FOR.get(wait.waker, (wait.waker, f"it waits for {wait.waker}"))
    if left is not None:
        what += f", for another {span(left)}" if left >= 0 else f"; it was due {span(-left)} ago"
    if row.items and wait.waker == "items":
        what += ": " + ", ".join(f"{count:,} {state}" for state, count in row.items.items())
    what += f": {wait.text}" if wait.text else ""
    if wait.waker == SIGNAL:
        path = f"/workflows/{situation.execution_id}/nodes/{row.node_id}/signal"
        what += f"; answer it with POST {path}"
    elif row.node_id in situation.cluster.places:
        what += describe_place(situation.cluster.places[row.node_id])
    elif wait.waker == CHILD:
        what += f"; GET /workflows/{wait.text}/explain says how that stands"
    reasons = [Reason(code, what)]
    if left is not None and left < 0 and not situation.cluster.has_scheduler:
        reasons.append(Reason("no_scheduler", NO_SCHEDULER))
    return reasons + _paused(situation)


# By what wakes a node, the code of the reason and what is said.
_WAITS_FOR: Final = {
    "date": ("waiting_until", "it waits and holds no slot"),
    "moment": ("waiting_until", "it waits for a moment and holds no slot"),
    SIGNAL: ("signal", "it waits for a signal"),
    "items": ("items", "it waits for its items"),
    CHILD: (CHILD, "it waits for its child"),
    SLOT: ("waiting_for_place", "it waits for a place of the limit"),
}

_EXPLAIN: Final = {
    NodeState.PENDING: _pending,
    NodeState.QUEUED: _queued,
    NodeState.RUNNING: _running,
    NodeState.RETRYING: _retrying,
    NodeState.WAITING: _waiting,
}


def _has_ended(state: NodeState | None) -> bool:
    return state is not None and state.is_terminal


def _failed_with(situation: Situation, node_id: str) -> list[str]:
    """The failed dependencies a node is failed with; none where it looks at them itself."""
    nodes = situation.plan.nodes
    return [
        one
        for one in _dependencies(situation, node_id, NodeState.FAILED)
        if not nodes[one].allow_failure and node_id not in nodes[one].lookers
    ]


def _dependencies(situation: Situation, node_id: str, state: NodeState) -> list[str]:
    """The dependencies of a node that are in this state."""
    dependencies = situation.plan.node(node_id).dependencies
    return [one for one in dependencies if situation.states.get(one) is state]


def _summary(situation: Situation) -> str:
    """One or two sentences on the whole execution."""
    status = situation.status
    if status is None:
        return "The status of this execution is damaged."
    if status is ExecutionState.PENDING:
        if situation.cluster.place is not None and situation.cluster.place.waits:
            return f"PENDING: {place_text(situation.cluster.place, situation.now_ms)}."
        return "Not triggered yet."
    simulated = ""
    if situation.simulated:
        simulated = f" Simulated, not called: {listed(situation.simulated)}."
    if status.is_terminal:
        return _summary_of_the_end(situation, status) + simulated
    first = f"{status}: {_counts(situation)}."
    if failed := _failed(situation):
        first += f" Failed: {listed(failed)}."
    if status is ExecutionState.PAUSED:
        first += " No node starts until it is resumed."
    if NodeState.CANCELLED in situation.states.values():
        first += " It was cancelled, and ends when its `finally` has run."
    return first + _obstacles(situation) + simulated


def _summary_of_the_end(situation: Situation, status: ExecutionState) -> str:
    if status is ExecutionState.FAILED and situation.failures.error:
        return f"FAILED: {situation.failures.error}."
    if situation.failures.first is not None:
        row = situation.failures.first
        because = f": {row.error}" if row.error else ""
        said = f"{status}: {row.node_id!r} failed{because}. {sentence(_counts(situation))}"
        is_map, count = row.node_id in situation.plan.maps, len(_failed(situation))
        return said + where_more_is(situation.execution_id, row.node_id, is_map, count)
    return f"{status}: {_counts(situation)}."


def _failed(situation: Situation) -> list[str]:
    """Those that have, and not with what they depend on."""
    failed = [one for one in situation.plan.nodes if situation.states[one] is NodeState.FAILED]
    return [one for one in failed if not _failed_with(situation, one)]


def _counts(situation: Situation) -> str:
    # Without the item that may be asked about.
    states = [situation.states[one] or "DAMAGED" for one in situation.plan.nodes]
    counts = Counter(states)
    said = [f"{counts[one]:,} {one}" for one in [*NodeState, "DAMAGED"] if counts[one]]
    total = len(states)
    return f"of {total:,} node{'' if total == 1 else 's'} {listed(said)}"


def _unread_queues(situation: Situation) -> list[str]:
    """Those of nodes that are queued in vain."""
    queued = (one for one, state in situation.states.items() if state is NodeState.QUEUED)
    return sorted({*map(situation.plan.queues.of, queued)} - situation.cluster.queues_read)


def _obstacles(situation: Situation) -> str:
    text = ""
    states = set(situation.states.values())
    if situation.cluster.workers_alive == 0 and NodeState.QUEUED in states:
        text += f" {sentence(NO_WORKER)}"
    elif unread := _unread_queues(situation):
        text += f" {sentence(unread_text(unread, situation.cluster.queues_read))}"
    if situation.queue.trouble:
        text += f" {sentence(TROUBLES[situation.queue.trouble])}"
    text += "".join(f" {sentence(trouble_text(one))}" for one in situation.troubles)
    if NodeState.QUEUED in states:
        text += "".join(f" {sentence(stall_text(one))}" for one in situation.cluster.stalled)
    if not situation.cluster.has_scheduler:
        text += f" {sentence(NO_SCHEDULER)}"
    return text + situation.cluster.unmade
