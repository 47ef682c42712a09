"""What has to hold once every fault is healed, of a live Redis and of the outside calls made.

`find_violations` is a whole proof, in sentences; an empty list means that all of it holds. Nothing
may move meanwhile: executions that still run are themselves a violation.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import redis as redis_py

from flowd.store.attempt_records import parse_record
from flowd.store.redis import keys
from flowd.workflow.graph import nodes_of
from flowd.workflow.ids import DEFAULT_QUEUE, split_item
from flowd.workflow.states import CANCELLING, ExecutionState, NodeState
from scripts.soaking.cache_checks import check_cache, hit_of
from scripts.soaking.child_checks import check_children
from scripts.soaking.ledger import END, START, Note
from scripts.soaking.limit_checks import check_calls, check_limits
from scripts.soaking.list_checks import check_lists, check_sets
from scripts.soaking.log_checks import check_logs
from scripts.soaking.map_checks import Items, check_items, read_items
from scripts.soaking.place_checks import check_places
from scripts.soaking.waits import check_waits, dated_nodes

STREAM = "workflow:tasks"
GROUP = "workflow_group"
# What a fault has begun may show this much later: a frozen worker still has to lose its lease.
FAULT_LASTS_S = 60.0
_PAGE = 500
_EVENTS_SCRIPT = "return redis.call('XRANGE', KEYS[1], ARGV[1], '+', 'COUNT', ARGV[2])"
_LIVE = (ExecutionState.RUNNING, ExecutionState.PAUSED, CANCELLING)
_TERMINAL = {state for state in ExecutionState if state.is_terminal}
_ENDED_NODE = {state for state in NodeState if state.is_terminal}
# Who has no ledger to keep.
_SILENT = frozenset({"delay", "signal", "workflow"})
_OUTSTANDING = (NodeState.QUEUED, NodeState.RUNNING)

NodeKey = tuple[str, str]


@dataclass
class Execution:
    """One execution, as its keys have it. `nodes` is a state per node, None where it has none."""

    id: str
    status: str | None
    definition: Mapping[str, Any] | None
    run: Mapping[str, str]
    attempts: Mapping[str, str]
    nodes: dict[str, str | None] = field(default_factory=dict)
    outputs: dict[str, str | None] = field(default_factory=dict)
    maps: list[Items] = field(default_factory=list)

    @property
    def with_items(self) -> dict[str, str | None]:
        """The states of all that the workers run of it."""
        items = {one: state for each in self.maps for one, state in each.named.items()}
        return {**self.nodes, **items}

    @property
    def never_began(self) -> bool:
        """Cancelled while it waited for a place of its workflow: then nothing cleans up."""
        return "place" in self.run and not self.attempts and "ends_as" not in self.run

    @property
    def is_rerun(self) -> bool:
        return bool(self.run.get("rerun_of"))

    @property
    def dependencies(self) -> dict[str, Sequence[str]]:
        return {one["id"]: one.get("dependencies", ()) for one in self._nodes()}

    @cached_property
    def written(self) -> dict[str, Mapping[str, Any]]:
        return {one["id"]: one for one in self._nodes()}

    def again_max(self, node_id: str) -> int:
        """How often the node may start again by itself: after each wait, and in each of its calls
        after attempts that failed."""
        written = self.written[split_item(node_id)[0]]
        waits = int(self.run.get(f"waits:{node_id}", 0))
        retries = int((written.get("retry") or {}).get("max_attempts", 1)) - 1
        return waits + retries * (waits + 1)

    def arrives(self, node_id: str) -> str | None:
        """How a node has ended, as its dependents hear it; None while it has not."""
        state = self.nodes.get(node_id)
        if state == NodeState.FAILED and f"allowed:{node_id}" in self.run:
            return NodeState.COMPLETED
        return state if state in _ENDED_NODE else None

    def failed_as_it_may(self, node_id: str) -> bool:
        """That a failure is allowed covers the node's own, not one it was failed with."""
        if self.nodes.get(node_id) != NodeState.FAILED:
            return False
        written = self.written[node_id]
        follows = written.get("after") in ("failed", "ended")
        return bool(written.get("allow_failure")) and (
            follows or all(self.arrives(one) != NodeState.FAILED for one in self.above(node_id))
        )

    def above(self, node_id: str) -> Sequence[str]:
        return self.written[node_id].get("dependencies", ())

    def can_begin(self, node_id: str) -> bool:
        """Whether it may be in front of the workers: what it looks at has ended."""
        if node_id in self.finally_nodes and not self.has_begun_finally:
            return False
        arrived = [self.arrives(one) for one in self.above(node_id)]
        looks = "after" in self.written[node_id]
        return None not in arrived and (looks or NodeState.FAILED not in arrived)

    def arrived(self, node_id: str) -> tuple[int, int, int]:
        """How many dependencies have ended, were skipped, and have failed."""
        arrived = [self.arrives(one) for one in self.above(node_id)]
        ended = len(arrived) - arrived.count(None)
        return ended, arrived.count(NodeState.SKIPPED), arrived.count(NodeState.FAILED)

    def _nodes(self) -> Sequence[Mapping[str, Any]]:
        return nodes_of(self.definition) if self.definition else ()

    @cached_property
    def finally_nodes(self) -> set[str]:
        dag = self.definition["dag"] if self.definition else {}
        return {one["id"] for one in dag.get("finally", ())}

    @property
    def has_begun_finally(self) -> bool:
        return "ends_as" in self.run


def find_violations(
    redis: redis_py.Redis,
    acknowledged: Iterable[str],
    ledger: Sequence[Note] | None = None,
    *,
    faults: int | Sequence[float] = 0,
    excused: Collection[str] = (),
    may_lack_lines: bool = False,
) -> list[str]:
    """Every sentence is one thing that does not hold.

    `redis` decodes its responses. `acknowledged` are the executions whose trigger was acknowledged;
    `ledger` the calls of their handlers, where those keep one; `faults` how many were injected,
    each of which may have cost every node one start; or when, by the ledger's clock, and each may
    have cost one start of every node that was on its way. `excused` were deleted on purpose, or
    damaged. `may_lack_lines` says that Redis was full for a while.
    """
    wanted = [one for one in dict.fromkeys(acknowledged) if one not in excused]
    known = [one for one in redis.zrange(keys.EXECUTIONS, 0, -1) if one not in excused]
    executions = {one.id: one for one in read_executions(redis, [*wanted, *known])}
    found: list[str] = []
    for execution_id in wanted:
        found += _check_ended(executions[execution_id])
    for execution in executions.values():
        found += _check_nodes(execution)
    found += _check_stream(redis, executions)
    found += _check_elsewhere(redis, executions)
    found += _check_active(redis, executions)
    found += _check_labels(redis, executions)
    found += check_lists(redis, executions)
    found += check_sets(redis)
    found += check_logs(redis, executions, may_lack_lines=may_lack_lines)
    found += check_children(redis, executions, excused)
    found += check_places(redis, executions)
    found += check_limits(redis, executions)
    found += _check_commits(redis)
    if ledger is not None:
        found += _check_ledger(executions, ledger, faults)
        found += check_calls(executions, ledger)
        found += check_cache(executions, ledger)
    return found


def _check_labels(redis: redis_py.Redis, executions: Mapping[str, Execution]) -> Iterator[str]:
    """Whether an execution stands in the list of each of its labels, and in no other."""
    wanted = {
        (label, one.id)
        for one in executions.values()
        if one.status
        for label in filter(None, one.run.get("labels", "").split("\n"))
    }
    names = list(redis.scan_iter(match=keys.label("*"), count=1_000))
    listed = {
        (name.removeprefix(keys.label("")), one)
        for name in names
        for one in redis.zrange(name, 0, -1)
    }
    for label, execution_id in sorted(wanted - listed):
        yield f"{execution_id}: has the label {label} and is not listed under it"
    for label, execution_id in sorted(listed - wanted):
        # What is being removed may still be listed.
        if execution_id in executions and executions[execution_id].status:
            yield f"{execution_id}: is listed under the label {label} without it"


def read_executions(redis: redis_py.Redis, execution_ids: Iterable[str]) -> Iterator[Execution]:
    unique = list(dict.fromkeys(execution_ids))
    for first in range(0, len(unique), _PAGE):
        some = unique[first : first + _PAGE]
        with redis.pipeline(transaction=False) as pipe:
            for one in some:
                pipe.get(keys.status(one))
                pipe.get(keys.definition(one))
                pipe.hgetall(keys.run(one))
                pipe.hgetall(keys.attempts(one))
            replies = pipe.execute(raise_on_error=False)
        read = [_execution(one, *replies[4 * at : 4 * at + 4]) for at, one in enumerate(some)]
        _read_nodes(redis, read)
        yield from read


def _execution(execution_id: str, *replies: Any) -> Execution:
    status, definition, run, attempts = replies
    return Execution(
        execution_id,
        status if isinstance(status, str) else None,
        _parsed(definition),
        run if isinstance(run, dict) else {},
        attempts if isinstance(attempts, dict) else {},
    )


def _parsed(text: Any) -> Mapping[str, Any] | None:
    try:
        return dict(json.loads(text))
    except (TypeError, ValueError):
        return None


def _read_nodes(redis: redis_py.Redis, executions: Sequence[Execution]) -> None:
    for one in executions:
        mapped = [node_id for node_id, said in one.written.items() if "map" in said]
        one.maps += [read_items(redis, one.id, node_id) for node_id in mapped]
    with redis.pipeline(transaction=False) as pipe:
        for one in executions:
            for node_id in one.dependencies:
                pipe.mget(keys.node(one.id, node_id), keys.output(one.id, node_id))
        replies = iter(pipe.execute())
    for one in executions:
        for node_id in one.dependencies:
            one.nodes[node_id], one.outputs[node_id] = next(replies)


# Of one execution.


def _check_ended(execution: Execution) -> Iterator[str]:
    if execution.status is None:
        yield f"{execution.id}: it was acknowledged and is gone"
    elif execution.status not in _TERMINAL:
        yield f"{execution.id}: it was acknowledged and has not ended, it is {execution.status}"


def _check_nodes(execution: Execution) -> Iterator[str]:
    """That the states of its nodes agree with each other, and with what is counted of them."""
    if execution.status is None or execution.definition is None:
        return
    states, named = execution.nodes, execution.id
    for node_id, state in states.items():
        yield from _check_node(execution, node_id, state)
    for items in execution.maps:
        state, is_live = states[items.node_id], execution.status in _LIVE
        yield from check_items(f"{named} {items.node_id}", items, state, is_live=is_live)
    if execution.status in _TERMINAL:
        open_nodes = [one for one, state in states.items() if state not in _ENDED_NODE]
        if open_nodes:
            yield f"{named}: it is {execution.status} and {open_nodes[0]} {states[open_nodes[0]]}"
    is_failed = any(execution.arrives(one) == NodeState.FAILED for one in states)
    if execution.status == ExecutionState.COMPLETED and is_failed:
        yield f"{named}: it is COMPLETED and has a FAILED node"
    if execution.status == ExecutionState.FAILED and not is_failed and "error" not in execution.run:
        yield f"{named}: it is FAILED and no node of it is"
    yield from _check_finally(execution)
    if execution.status in (*_LIVE, ExecutionState.COMPLETED):
        # Until those of `finally` begin they are not counted.
        counted_nodes = set(states) - (
            set() if execution.has_begun_finally else set(execution.finally_nodes)
        )
        left = sum(states[one] not in _ENDED_NODE for one in counted_nodes)
        if execution.run.get("remaining") != str(left):
            counted = execution.run.get("remaining")
            yield f"{named}: {left} nodes are left and it counts {counted}"


def _check_finally(execution: Execution) -> Iterator[str]:
    """What cleans up has run last, whatever became of the others, unless it was left out."""
    if not execution.finally_nodes or execution.status == ExecutionState.PENDING:
        return
    named, states = execution.id, execution.nodes
    others = {one: states[one] for one in states if one not in execution.finally_nodes}
    last = {one: states[one] for one in execution.finally_nodes}
    still_open = [one for one, state in others.items() if state not in _ENDED_NODE]
    begun = [one for one, state in last.items() if state != NodeState.PENDING]
    if execution.status in _LIVE and still_open and (begun or execution.has_begun_finally):
        yield f"{named}: its finally has begun and {still_open[0]} is {others[still_open[0]]}"
    if execution.status in (ExecutionState.COMPLETED, ExecutionState.FAILED):
        was_damaged = "error" in execution.run
        if not execution.has_begun_finally and not was_damaged:
            yield f"{named}: it is {execution.status} and its finally has never begun"
    ends_as = execution.run.get("ends_as")
    if ends_as == ExecutionState.CANCELLED and execution.status in (
        ExecutionState.COMPLETED,
        ExecutionState.FAILED,
    ):
        yield f"{named}: it was cancelled and ended as {execution.status}"
    is_failed = any(execution.arrives(one) == NodeState.FAILED for one in others)
    expected = ExecutionState.FAILED if is_failed else ExecutionState.COMPLETED
    if ends_as not in (None, ExecutionState.CANCELLED, expected):
        yield f"{named}: its nodes came to {expected}, and its finally was told {ends_as}"


def _check_node(execution: Execution, node_id: str, state: str | None) -> Iterator[str]:
    named = f"{execution.id} {node_id}"
    if state not in set(NodeState):
        yield f"{named}: its state is {state!r}"
        return
    above = execution.dependencies[node_id]
    can_begin = execution.can_begin(node_id)
    is_begun = state not in (NodeState.PENDING, NodeState.CANCELLED, NodeState.FAILED)
    if is_begun and not can_begin:
        yield f"{named}: it is {state} before its dependencies {', '.join(above)} let it"
    if above and can_begin and (state, execution.status) == (NodeState.PENDING, "RUNNING"):
        yield f"{named}: it is PENDING behind its dependencies, all of which have ended"
    yield from _check_choice(execution, node_id, state)
    # A rerun leaves out what failed before and was not asked for.
    if state == NodeState.FAILED and node_id not in execution.attempts and not execution.is_rerun:
        causes = [one for one in above if execution.nodes.get(one) == NodeState.FAILED]
        if not causes and "error" not in execution.run:
            yield f"{named}: it is FAILED, never ran, and no dependency of it FAILED"
    has_output = execution.outputs[node_id] is not None
    if has_output != (state in (NodeState.COMPLETED, NodeState.FAILED)):
        yield f"{named}: it is {state} {'with' if has_output else 'without'} an output"
    if state == NodeState.COMPLETED and not execution.is_rerun:
        yield from _check_record(execution, node_id)


def _check_choice(execution: Execution, node_id: str, state: str | None) -> Iterator[str]:
    """SKIPPED has one reason and took no attempt of a handler; what has arrived adds up."""
    named, run = f"{execution.id} {node_id}", execution.run
    if (state == NodeState.SKIPPED) != (f"skipped:{node_id}" in run):
        yield f"{named}: it is {state}, and the reason of a skip {run.get(f'skipped:{node_id}')!r}"
    is_allowed = f"allowed:{node_id}" in run
    # A rerun fails what it leaves out, whatever that may.
    if is_allowed != execution.failed_as_it_may(node_id) and (is_allowed or not execution.is_rerun):
        marked = "marked" if is_allowed else "not marked"
        yield f"{named}: it is {state} and {marked} as a failure that is allowed"
    counted = run.get(f"arrived:{node_id}")
    if counted is None or execution.status not in (*_LIVE, ExecutionState.COMPLETED):
        return
    ended, skipped, failed = execution.arrived(node_id)
    if int(counted) not in (ended + skipped * 2**17 + failed * 2**34,):
        yield f"{named}: {ended} ended, {skipped} skipped, {failed} failed, and it counts {counted}"


def _check_record(execution: Execution, node_id: str) -> Iterator[str]:
    """The output that stands is that of the attempt that was committed, where it says so."""
    record = parse_record(execution.attempts.get(node_id))
    if record is None or record.attempt is None:
        yield f"{execution.id} {node_id}: it is COMPLETED without a record of its attempt"
        return
    said = (_parsed(execution.outputs[node_id]) or {}).get("attempt", record.attempt)
    if said != record.attempt:
        yield (
            f"{execution.id} {node_id}: attempt {record.attempt} was committed, and the output is "
            f"that of attempt {said}"
        )


# Of the stream, and of the sets beside it.


def _check_stream(redis: redis_py.Redis, executions: Mapping[str, Execution]) -> Iterator[str]:
    """QUEUED or RUNNING is exactly one entry over all queues, in its own, and whoever holds one has
    a lease."""
    entries: Counter[NodeKey] = Counter()
    for queue in (DEFAULT_QUEUE, *redis.smembers(keys.QUEUES)):
        stream, ids = keys.task_stream(STREAM, queue), set()
        for entry_id, fields in _entries(redis, stream):
            ids.add(entry_id)
            execution_id, node_id = fields.get("execution_id", ""), fields.get("node_id", "")
            entries[execution_id, node_id] += 1
            if (
                execution_id in executions
                and (own := _queue(redis, execution_id, node_id)) != queue
            ):
                yield f"{execution_id} {node_id}: it is in the queue {queue} and belongs into {own}"
        yield from _check_pending(redis, stream, ids)
    for execution in executions.values():
        is_live = execution.status in _LIVE
        for node_id, state in execution.with_items.items():
            count = entries.pop((execution.id, node_id), 0)
            is_outstanding = is_live and state in _OUTSTANDING
            if count != is_outstanding:
                state = f"{state} in a {execution.status} execution"
                yield f"{execution.id} {node_id}: it is {state} and has {count} entries"
    for node_key, count in entries.items():
        yield f"{' '.join(node_key)}: {count} entries of no execution there is"


def _queue(redis: redis_py.Redis, execution_id: str, node_id: str) -> str:
    """Where the run of an execution says that a node, or an item of one, is queued."""
    fields = (f"queue:{node_id.partition('.')[0]}", "queue")
    own, of_all = redis.hmget(keys.run(execution_id), fields)
    return own or of_all or DEFAULT_QUEUE


def _check_pending(redis: redis_py.Redis, stream: str, entry_ids: Collection[str]) -> Iterator[str]:
    if not redis.exists(stream):
        return
    leases = set(redis.hkeys(keys.LEASES))
    for consumer in redis.xinfo_consumers(stream, GROUP):
        if consumer["pending"] and consumer["name"] not in leases:
            yield f"{consumer['name']}: it holds {consumer['pending']} entries without a lease"
    after = "-"
    while rows := redis.xpending_range(stream, GROUP, after, "+", _PAGE):
        for row in rows:
            if row["message_id"] not in entry_ids:
                yield f"{row['consumer']}: it holds {row['message_id']}, which is no entry any more"
        after = f"({rows[-1]['message_id']}"


def _check_elsewhere(redis: redis_py.Redis, executions: Mapping[str, Execution]) -> Iterator[str]:
    """RETRYING is a date, WAITING a waker, and nothing has a date or is carried on in vain."""
    dated = dated_nodes(redis)
    for execution in executions.values():
        is_live, states = execution.status in _LIVE, execution.with_items
        for node_id, state in states.items():
            has_date = (execution.id, node_id) in dated
            if has_date != (state == NodeState.RETRYING and is_live) and not (
                state == NodeState.WAITING and is_live
            ):
                among = "among" if has_date else "not among"
                yield f"{execution.id} {node_id}: it is {state} and {among} the dates"
        yield from check_waits(redis, execution.id, states, dated)
        dated -= {(execution.id, one) for one in states}
        if execution.status in _TERMINAL and redis.exists(keys.parked(execution.id)):
            yield f"{execution.id}: it has ended and keeps nodes back"
    for node_key in dated:
        yield f"{' '.join(node_key)}: it has a date and does not exist"
    for member in redis.zrange(keys.CONTINUATIONS, 0, -1):
        yield f"{member}: begun, and never carried on"


def _check_active(redis: redis_py.Redis, executions: Mapping[str, Execution]) -> Iterator[str]:
    """`workflows:active` are those that were triggered and have not ended."""
    active = redis.smembers(keys.ACTIVE)
    live = {one.id for one in executions.values() if one.status in _LIVE}
    for execution_id in sorted(active - live):
        status = executions[execution_id].status if execution_id in executions else "unknown"
        yield f"{execution_id}: it is {status} and among the active"
    for execution_id in sorted(live - active):
        yield f"{execution_id}: it is {executions[execution_id].status} and not among the active"
    finished = set(redis.zrange(keys.FINISHED, 0, -1))
    for one in executions.values():
        if (one.status in _TERMINAL) != (one.id in finished):
            among = "among" if one.id in finished else "not among"
            yield f"{one.id}: it is {one.status} and {among} the finished"


def _check_commits(redis: redis_py.Redis) -> Iterator[str]:
    """Each node and each execution has ended once, as far as the stream of events goes back."""
    ends: Counter[str] = Counter()
    claims: Counter[str] = Counter()
    for happened in read_events(redis):
        what, about = happened
        parts = about.split(" ")
        if what in ("node.completed", "node.failed"):
            ends[" ".join(parts[:2])] += 1
        elif what in ("execution.completed", "execution.failed", "execution.cancelled"):
            ends[parts[0]] += 1
        elif what == "node.started":
            claims[" ".join(parts[:3])] += 1
    for about, count in ends.items():
        if count > 1:
            yield f"{about}: it has ended {count} times"
    for about, count in claims.items():
        if count > 1:
            yield f"{about}: this attempt began {count} times"


def read_events(redis: redis_py.Redis) -> Iterator[tuple[str, str]]:
    """(type, text) of everything that happened, as far as the stream goes back."""
    after = "-"
    # By a script: the client would make a dict of the fields, and a type may come more than once.
    while rows := redis.eval(_EVENTS_SCRIPT, 1, keys.EVENTS, after, _PAGE):
        for _, fields in rows:
            yield from zip(fields[::2], fields[1::2], strict=True)
        after = f"({rows[-1][0]}"


def _entries(redis: redis_py.Redis, stream: str) -> Iterator[tuple[str, Mapping[str, str]]]:
    after = "-"
    while rows := redis.xrange(stream, after, "+", count=_PAGE):
        yield from rows
        after = f"({rows[-1][0]}"


# Of the outside world.


def _check_ledger(
    executions: Mapping[str, Execution], ledger: Sequence[Note], faults: int | Sequence[float]
) -> Iterator[str]:
    starts: defaultdict[NodeKey, list[Note]] = defaultdict(list)
    ended: set[NodeKey] = set()
    for note in ledger:
        execution = executions.get(note.execution_id)
        if execution is None or execution.definition is None:
            continue
        if note.phase == START:
            if note.node not in starts and not execution.is_rerun:
                yield from _check_order(execution, note, ended)
            starts[note.node].append(note)
        elif note.phase == END:
            ended.add(note.node)
    for node_key, notes in starts.items():
        met = _faults_met(faults, notes)
        yield from _check_starts(executions[node_key[0]], node_key[1], notes, met)
    for execution in executions.values():
        if execution.is_rerun:
            continue
        mapped = {each.node_id for each in execution.maps}
        for node_id, state in execution.with_items.items():
            written = execution.written[split_item(node_id)[0]]
            if node_id in mapped or _is_silent(execution, node_id, written):
                continue
            if state == NodeState.COMPLETED and (execution.id, node_id) not in ended:
                yield f"{execution.id} {node_id}: it is COMPLETED and was never called to its end"


def _is_silent(execution: Execution, node_id: str, written: Mapping[str, Any]) -> bool:
    """Whether nobody was called: it has no ledger to keep, or took what was kept."""
    return written["handler"] in _SILENT or hit_of(execution, node_id) is not None


def _check_order(execution: Execution, note: Note, ended: Collection[NodeKey]) -> Iterator[str]:
    node_id, _ = split_item(note.node_id)
    looks = "after" in execution.written[node_id]
    for one in execution.dependencies.get(node_id, ()):
        # These end without a call that ends well.
        state = execution.nodes.get(one)
        may_fail = looks or execution.arrives(one) == NodeState.COMPLETED
        if state == NodeState.SKIPPED or (state == NodeState.FAILED and may_fail):
            continue
        # Of a map its items are called, and it is not.
        written = execution.written[one]
        is_silent = "map" in written or _is_silent(execution, one, written)
        if not is_silent and (execution.id, one) not in ended:
            yield f"{' '.join(note.node)}: it was started before its dependency {one} had ended"


def _faults_met(faults: int | Sequence[float], starts: Sequence[Note]) -> int:
    """How many there were while the node was on its way."""
    if isinstance(faults, int):
        return faults
    first, last = starts[0].at_s, starts[-1].at_s
    return sum(first - FAULT_LASTS_S < at_s < last for at_s in faults)


def _check_starts(
    execution: Execution, node_id: str, starts: Sequence[Note], met: int
) -> Iterator[str]:
    named = f"{execution.id} {node_id}"
    attempts = [note.attempt for note in starts]
    for attempt, count in Counter(attempts).items():
        if count > 1:
            yield f"{named}: attempt {attempt} was started {count} times"
    allowed = 1 + met + execution.again_max(node_id)
    if len(attempts) > allowed:
        yield f"{named}: it was started {len(attempts)} times, and {allowed} can be explained"
    record = parse_record(execution.attempts.get(node_id))
    committed = record.attempt if record else None
    is_committed = execution.with_items.get(node_id) == NodeState.COMPLETED
    if is_committed and committed is not None and committed < max(attempts):
        yield f"{named}: attempt {max(attempts)} was started, and attempt {committed} committed"
    is_hit = record is not None and record.is_cached
    if is_committed and committed not in attempts and not is_hit:
        yield f"{named}: attempt {committed} was committed, and never started"


# Of the processes.


def check_processes(status: Mapping[str, Any] | None, configured: Mapping[str, int]) -> list[str]:
    """That a supervisor's status shows as many processes of each role as it should have."""
    if status is None:
        return ["the supervisor does not answer"]
    found = Counter(one["role"] for one in status["processes"] if one["state"] == "RUNNING")
    violations = [
        f"{found[role]} of {count} processes of the {role} run"
        for role, count in configured.items()
        if found[role] != count
    ]
    violations += [
        f"{one['name']} is {one['state']}: {one.get('last_exit')}"
        for one in status["processes"]
        if one["state"] != "RUNNING"
    ]
    return violations
