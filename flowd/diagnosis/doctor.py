"""Check that everything in Redis is consistent, and change nothing.

What is under way while it is looked at is no finding: only what stands through every look is one.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass, field, replace
from typing import Final, NamedTuple

from flowd.diagnosis.held import Held
from flowd.diagnosis.index_check import Lists, list_mismatches
from flowd.diagnosis.kin_check import orphans
from flowd.diagnosis.label_check import label_mismatches
from flowd.diagnosis.log_check import log_mismatches
from flowd.diagnosis.place_check import broken_places
from flowd.diagnosis.schedule_check import broken_schedules
from flowd.errors import CorruptExecution
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.portions import DEFINITION_BYTES_MAX, portions
from flowd.replicas import Replica
from flowd.store import Store
from flowd.store.entries import Entry
from flowd.store.executions import slices
from flowd.store.inspection import Begun, Consumer, NodeKey
from flowd.store.kin import Kin
from flowd.store.metrics import Queue
from flowd.store.troubles import Trouble
from flowd.store.waits import WaitRecord
from flowd.workflow.children import CHILD
from flowd.workflow.ids import is_execution_id
from flowd.workflow.states import CANCELLING, ExecutionState, NodeState

LOOKS: Final = 3
PAUSE_S: Final = 0.5
EXECUTIONS_PER_READ: Final = 100
# A scheduler carries on what was left for seconds, and for a minute where it is a submission.
OVERDUE_MS: Final = 120_000
_LIVE: Final = frozenset({ExecutionState.RUNNING, ExecutionState.PAUSED, CANCELLING})
_UNENDED: Final = _LIVE | {ExecutionState.PENDING}
_ENDED: Final = frozenset(one for one in ExecutionState if one.is_terminal)
_NODE_ENDED: Final = frozenset(one for one in NodeState if one.is_terminal)
_IN_STREAM: Final = frozenset({NodeState.QUEUED, NodeState.RUNNING})
_WITH_DATE: Final = frozenset({NodeState.RETRYING, NodeState.WAITING})


@dataclass(frozen=True, slots=True)
class Check:
    """One rule, how many things it was held against, and what breaks it."""

    rule: str
    counted: int
    violations: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Examination:
    """`queue` and `dead_letters` break no rule, whatever they are; None where nobody could look.

    `risks` break none either, yet: they say what this Redis may lose.
    """

    checks: tuple[Check, ...]
    risks: tuple[str, ...] = ()
    queue: Queue | None = None
    dead_letters: int = 0
    workers: int = 0
    replicas: tuple[Replica, ...] = ()

    @property
    def is_sound(self) -> bool:
        return not any(check.violations for check in self.checks)


@dataclass(slots=True)
class StreamView:
    """The task streams and those who read them.

    By the name of an entry `entries` says what each is about, `garbage` what is wrong with it,
    `holders` who has it; `delivered` are those that somebody was given.
    """

    leases: set[str]
    consumers: Sequence[Consumer] = ()
    delivered: set[str] = field(default_factory=set)
    entries: dict[str, NodeKey] = field(default_factory=dict)
    garbage: dict[str, str] = field(default_factory=dict)
    holders: dict[str, str] = field(default_factory=dict)


class Failing(NamedTuple):
    """What a scheduler cannot do."""

    duties: Sequence[Trouble]
    continuations: Sequence[Trouble]


NOTHING_FAILS: Final = Failing((), ())


@dataclass(slots=True)
class Snapshot:
    """Everything that one look has seen.

    `statuses` has every execution that anything names, None for those that do not exist;
    `node_states` every node of those that are live, and what there is of the others; `waits` what
    the WAITING among them wait for, `retries` whatever has a date, `kins` the live ones that are
    children.
    """

    stream: StreamView
    known: set[str] = field(default_factory=set)
    active: set[str] = field(default_factory=set)
    finished: set[str] = field(default_factory=set)
    with_keys: set[str] = field(default_factory=set)
    statuses: dict[str, str | None] = field(default_factory=dict)
    node_states: dict[NodeKey, str | None] = field(default_factory=dict)
    unreadable: list[str] = field(default_factory=list)
    retries: set[NodeKey] = field(default_factory=set)
    waits: dict[NodeKey, WaitRecord | None] = field(default_factory=dict)
    kins: dict[str, Kin] = field(default_factory=dict)
    begun: list[Begun] = field(default_factory=list)
    lists: Lists = field(default_factory=Lists)
    failing: Failing = NOTHING_FAILS
    held: Held = field(default_factory=Held)

    @property
    def in_progress(self) -> set[str]:
        """Executions somebody is in the middle of storing, ending or removing."""
        return {one.execution_id for one in self.begun if one.age_ms < OVERDUE_MS}


async def examine(store: Store, *, pause_s: float = PAUSE_S) -> Examination:
    """Every rule with what breaks it, and did so at every look. Raises StoreUnavailable."""
    fitness = await store.health.metrics.fitness()
    fit = Check("this Redis is one that flowd can work with", 1, fitness.defects)
    if fitness.defects:
        return Examination((fit,), fitness.risks)
    room = Check("this Redis has room for new work", 1, fitness.shortages)
    types = await _check_types(store)
    if types.violations:
        return Examination((fit, room, types), fitness.risks)
    checks = check(await look(store))
    for _ in range(LOOKS - 1):
        if not any(one.violations for one in checks):
            break
        await asyncio.sleep(pause_s)
        checks = _in_both(checks, check(await look(store)))
    counted = await store.health.metrics.snapshot()
    numbers = counted.queue, counted.dead_letters, counted.workers
    return Examination((fit, room, types, *checks), fitness.risks, *numbers, fitness.replicas)


def _in_both(before: Sequence[Check], now: Sequence[Check]) -> tuple[Check, ...]:
    return tuple(
        replace(one, violations=tuple(v for v in one.violations if v in set(earlier.violations)))
        for earlier, one in zip(before, now, strict=True)
    )


async def _check_types(store: Store) -> Check:
    violations = tuple(
        f"the key {key!r} is a {found} and should be a {expected}"
        for key, found, expected in await store.health.inspection.mistyped()
    )
    return Check("the keys that executions share are what they should be", 1, violations)


# What there is.


async def look(store: Store) -> Snapshot:
    snapshot = Snapshot(await _look_at_stream(store))
    snapshot.retries = set(await store.retries.waiting())
    snapshot.begun = await store.health.inspection.begun()
    snapshot.failing = Failing(
        await store.health.troubles.duties(), await store.health.troubles.continuations()
    )
    snapshot.held = await Held.look(store)
    snapshot.active = await store.health.inspection.active()
    snapshot.finished = await store.health.inspection.finished()
    snapshot.known = await store.health.inspection.known()
    snapshot.lists.labels.lists = await store.health.inspection.label_lists()
    await snapshot.lists.read(store)
    await _look_at_keys(store, snapshot)
    await _look_at_executions(store, snapshot)
    return snapshot


async def _look_at_stream(store: Store) -> StreamView:
    stream = StreamView(
        await store.health.inspection.leases(), await store.health.inspection.consumers()
    )
    async for page in store.tasks.outstanding():
        for entry, is_delivered in page:
            if isinstance(entry, Entry):
                stream.entries[entry.name] = (entry.execution_id, entry.node_id)
                if is_delivered:
                    stream.delivered.add(entry.name)
            else:
                stream.garbage[entry.name] = entry.reason
    stream.holders = await store.health.inspection.holders()
    return stream


async def _look_at_keys(store: Store, snapshot: Snapshot) -> None:
    cursor = "0"
    while True:
        cursor, key_names = await store.health.inspection.key_slice(cursor)
        snapshot.with_keys |= key_names.execution_ids
        snapshot.node_states.update(key_names.node_states)
        snapshot.lists.logs.kept |= key_names.logs
        if cursor == "0":
            return


async def _look_at_executions(store: Store, snapshot: Snapshot) -> None:
    """Status of everything that is named anywhere; nodes of what is live, by its definition."""
    plans = Plans(store)
    named = snapshot.known | snapshot.active | snapshot.finished | snapshot.with_keys
    named |= snapshot.held.places.named
    named |= {one for listed in snapshot.lists.by_status.values() for one in listed}
    named |= {one for _, one in snapshot.lists.by_name if is_execution_id(one)}
    named |= {one for one, _ in (*snapshot.stream.entries.values(), *snapshot.retries)}
    for part in slices(sorted(named), EXECUTIONS_PER_READ):
        await snapshot.lists.read_given(store.health.inspection, part)
        await snapshot.lists.read_names(store, part)
        sizes = await store.health.inspection.definition_sizes(part)
        for portion in portions(dict(zip(part, sizes, strict=True)), DEFINITION_BYTES_MAX):
            await _look_at_portion(store, plans, portion, snapshot)


async def _look_at_portion(
    store: Store, plans: Plans, portion: Sequence[str], snapshot: Snapshot
) -> None:
    pairs = await store.executions.statuses_and_definitions(portion)
    live: dict[str, Sequence[str]] = {}
    for execution_id, (status, definition) in zip(portion, pairs, strict=True):
        snapshot.statuses[execution_id] = status
        try:
            if status is not None and definition is None:
                raise CorruptExecution(execution_id, "its definition is gone")
            if status not in _LIVE or definition is None:
                continue
            live[execution_id] = tuple(plans.compile(execution_id, definition).nodes)
        except CorruptExecution as error:
            snapshot.unreadable.append(str(error))
    unended = [one for one in portion if snapshot.statuses[one] in _UNENDED]
    snapshot.held.places.asked |= await store.lifecycle.places.asked(unended)
    snapshot.kins |= await store.children.kins(list(live))
    for execution_id, states in (await store.executions.states_of_nodes(live)).items():
        for node_id, state in states.items():
            snapshot.node_states[execution_id, node_id] = state
        waiting = [one for one, state in states.items() if state == NodeState.WAITING]
        waits = await _waits_of(store, snapshot, execution_id, waiting)
        snapshot.waits.update(((execution_id, one), wait) for one, wait in waits.items())


async def _waits_of(
    store: Store, snapshot: Snapshot, execution_id: str, waiting: Sequence[str]
) -> dict[str, WaitRecord | None]:
    try:
        return await store.tasks.waits.records(execution_id, waiting)
    except CorruptExecution as error:
        snapshot.unreadable.append(str(error))
        return {}


# What has to hold of it: each rule yields what breaks it, in words that are the same at every look.


def check(snapshot: Snapshot) -> tuple[Check, ...]:
    return tuple(
        Check(rule, counted(snapshot), tuple(broken_by(snapshot)))
        for rule, counted, broken_by in _RULES
    )


def _not_listed(snapshot: Snapshot) -> Iterator[str]:
    for execution_id, status in snapshot.statuses.items():
        if status is not None and execution_id not in snapshot.known:
            yield f"execution {execution_id} is {status} and not in the list"
    for execution_id in sorted(snapshot.known):
        if snapshot.statuses.get(execution_id) is None:
            yield f"execution {execution_id} is in the list and has no status"


def _not_active(snapshot: Snapshot) -> Iterator[str]:
    yield from _not_in(snapshot, snapshot.active, _LIVE, "is active", "not active")


def _not_finished(snapshot: Snapshot) -> Iterator[str]:
    members = snapshot.finished
    yield from _not_in(snapshot, members, _ENDED, "counts as ended", "does not count as ended")


def _not_in(
    snapshot: Snapshot, members: Set[str], states: Set[str], is_in: str, is_not_in: str
) -> Iterator[str]:
    """Where a set that is to hold the executions of these states holds others, or not all."""
    for execution_id in sorted(members):
        status = snapshot.statuses.get(execution_id)
        if status not in states:
            yield f"execution {execution_id} {is_in} and {_said(status)}"
    for execution_id, status in snapshot.statuses.items():
        if status in states and execution_id not in members:
            yield f"execution {execution_id} is {status} and {is_not_in}"


def _said(status: str | None) -> str:
    return f"is {status}" if status else "has no status"


def _unreadable(snapshot: Snapshot) -> Iterator[str]:
    yield from snapshot.unreadable
    for execution_id, status in snapshot.statuses.items():
        if status is not None and status not in {*ExecutionState, CANCELLING}:
            yield f"execution {execution_id} is in the state {status!r}"
    for (execution_id, node_id), state in snapshot.node_states.items():
        if state not in set(NodeState) and snapshot.statuses.get(execution_id) is not None:
            yield f"execution {execution_id}: node {node_id} is in the state {state!r}"


def _entry_mismatches(snapshot: Snapshot) -> Iterator[str]:
    counts = Counter(snapshot.stream.entries.values())
    for (execution_id, node_id), state in snapshot.node_states.items():
        count = counts[execution_id, node_id]
        wanted = 1 if state in _IN_STREAM else 0
        if snapshot.statuses.get(execution_id) in _LIVE and count != wanted:
            yield f"execution {execution_id}: node {node_id} is {state} and has {count} entries"
    for execution_id, node_id in sorted(counts):
        status = snapshot.statuses.get(execution_id)
        # Those of a cancelled execution go when a worker meets them.
        if status not in _LIVE and status != ExecutionState.CANCELLED:
            whose = f"execution {execution_id}, which {_said(status)}"
            yield f"an entry of node {node_id} of {whose}"


def _date_mismatches(snapshot: Snapshot) -> Iterator[str]:
    for (execution_id, node_id), state in snapshot.node_states.items():
        is_live = snapshot.statuses.get(execution_id) in _LIVE
        has_date = (execution_id, node_id) in snapshot.retries
        if is_live and state == NodeState.RETRYING and not has_date:
            yield f"execution {execution_id}: node {node_id} is RETRYING and waits for nothing"
    for execution_id, node_id in sorted(snapshot.retries):
        state = snapshot.node_states.get((execution_id, node_id))
        is_live = snapshot.statuses.get(execution_id) in _LIVE
        if not is_live or state not in _WITH_DATE:
            yield f"execution {execution_id}: node {node_id} waits for a date and {_said(state)}"


def _wait_mismatches(snapshot: Snapshot) -> Iterator[str]:
    for (execution_id, node_id), wait in sorted(snapshot.waits.items()):
        if wait is None:
            yield f"execution {execution_id}: node {node_id} is WAITING and nothing says for what"
        elif wait.due_ms is not None and (execution_id, node_id) not in snapshot.retries:
            yield f"execution {execution_id}: node {node_id} is WAITING and no date wakes it"
        elif wait.waker == CHILD and snapshot.statuses.get(wait.text) not in _UNENDED:
            child = f"its child {wait.text}, which {_said(snapshot.statuses.get(wait.text))}"
            yield f"execution {execution_id}: node {node_id} is WAITING for {child}"


def _open_nodes(snapshot: Snapshot) -> Iterator[str]:
    in_progress = snapshot.in_progress
    for (execution_id, node_id), state in snapshot.node_states.items():
        status = snapshot.statuses.get(execution_id)
        if status in _ENDED and state not in _NODE_ENDED and execution_id not in in_progress:
            yield f"execution {execution_id} is {status} and its node {node_id} {state}"


def _ownerless(snapshot: Snapshot) -> Iterator[str]:
    in_progress = snapshot.in_progress
    for execution_id in sorted(snapshot.with_keys - in_progress):
        if snapshot.statuses.get(execution_id) is None:
            yield f"keys of execution {execution_id}, which does not exist"


def _holder_mismatches(snapshot: Snapshot) -> Iterator[str]:
    for name, pending in snapshot.stream.consumers:
        if pending and name not in snapshot.stream.leases:
            yield f"consumer {name} holds {pending} entries without a lease"
    for entry, consumer in snapshot.stream.holders.items():
        if entry not in snapshot.stream.entries and entry not in snapshot.stream.garbage:
            yield f"consumer {consumer} holds {entry}, which is no entry any more"
    for entry in snapshot.stream.entries:
        if entry in snapshot.stream.delivered and entry not in snapshot.stream.holders:
            yield f"entry {entry} was handed out and nobody holds it"


def _overdue(snapshot: Snapshot) -> Iterator[str]:
    for work in snapshot.begun:
        if work.age_ms >= OVERDUE_MS:
            yield f"execution {work.execution_id}: `{work.what}` was begun and never carried on"
    for what, reason in snapshot.failing.continuations:
        yield f"`{what}` was begun and cannot be carried on: {reason}"


def _failing_duties(snapshot: Snapshot) -> Iterator[str]:
    for what, reason in snapshot.failing.duties:
        yield f"the duty `{what}` of a scheduler: {reason}"


_Counted = Callable[[Snapshot], int]
_BrokenBy = Callable[[Snapshot], Iterable[str]]
_RULES: Sequence[tuple[str, _Counted, _BrokenBy]] = (
    (
        "every execution is listed, and nothing else",
        lambda snapshot: len(snapshot.known),
        _not_listed,
    ),
    ("active are those that run or pause", lambda snapshot: len(snapshot.active), _not_active),
    ("ended are those that count as ended", lambda snapshot: len(snapshot.finished), _not_finished),
    (
        "the lists by state and by name hold the executions they should",
        lambda snapshot: sum(map(len, snapshot.lists.by_status.values())),
        lambda snapshot: list_mismatches(snapshot.lists, snapshot.statuses),
    ),
    ("what is stored can be read", lambda snapshot: len(snapshot.statuses), _unreadable),
    (
        "a QUEUED or RUNNING node has exactly one entry in the stream",
        lambda snapshot: len(snapshot.stream.entries),
        _entry_mismatches,
    ),
    ("a RETRYING node has a date", lambda snapshot: len(snapshot.retries), _date_mismatches),
    ("a WAITING node has a waker", lambda snapshot: len(snapshot.waits), _wait_mismatches),
    (
        "a child has a node that waits for it",
        lambda snapshot: len(snapshot.kins),
        lambda snapshot: orphans(snapshot.kins, snapshot.statuses, snapshot.node_states),
    ),
    (
        "an execution that ended has no open node",
        lambda snapshot: len(snapshot.node_states),
        _open_nodes,
    ),
    (
        "the list of a label holds the executions that have it",
        lambda snapshot: len(snapshot.lists.labels.lists),
        lambda snapshot: label_mismatches(
            snapshot.lists.labels, snapshot.statuses, snapshot.in_progress
        ),
    ),
    (
        "every log is listed, and earlier attempts are earlier",
        lambda snapshot: len(snapshot.lists.logs.kept),
        lambda snapshot: log_mismatches(snapshot.lists.logs, snapshot.node_states),
    ),
    ("no key without an execution", lambda snapshot: len(snapshot.with_keys), _ownerless),
    (
        "every entry can be read",
        lambda snapshot: len(snapshot.stream.entries) + len(snapshot.stream.garbage),
        lambda snapshot: (
            f"entry {entry_id}: {why}" for entry_id, why in snapshot.stream.garbage.items()
        ),
    ),
    (
        "whoever holds work has a lease",
        lambda snapshot: len(snapshot.stream.leases),
        _holder_mismatches,
    ),
    ("what was begun is carried on", lambda snapshot: len(snapshot.begun), _overdue),
    (
        "a schedule is looked at in time",
        lambda snapshot: len(snapshot.held.schedules),
        lambda snapshot: broken_schedules(snapshot.held.schedules, snapshot.statuses),
    ),
    (
        "who holds a place runs, and nobody waits for a free one",
        lambda snapshot: len(snapshot.held.places.holders) + len(snapshot.held.places.waiters),
        lambda snapshot: broken_places(
            snapshot.held.places, snapshot.statuses, snapshot.node_states
        ),
    ),
    (
        "outputs that are kept for equal calls are listed and counted",
        lambda snapshot: snapshot.held.cache.entries,
        lambda snapshot: snapshot.held.cache.mismatches,
    ),
    (
        "what belongs to a set is applied",
        lambda one: one.held.sets.members,
        lambda one: one.held.sets.mismatches,
    ),
    (
        "no duty of a scheduler fails",
        lambda snapshot: len(snapshot.failing.duties),
        _failing_duties,
    ),
)
