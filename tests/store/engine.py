"""What the store's tests act with: small executions, workers without handlers, and a view of all
that Redis holds of an execution.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import orjson
import redis as redis_py

from flowd.orchestrator.executor import node_failure
from flowd.orchestrator.plans import Plans
from flowd.scheduler.continuations import SUBMISSION_OVERDUE_S, FinishContinuations
from flowd.scheduler.reconciler import Reconciler
from flowd.store import Store
from flowd.store.attempt_records import attempt_record
from flowd.store.child_starts import ChildStart, ChildWorkflow
from flowd.store.endings import (
    COMMIT_MAX,
    Advance,
    AllowedFailure,
    Completion,
    Failure,
    ItemCompletion,
    Single,
    Skip,
    Wait,
)
from flowd.store.entries import Entry, name_in, parse_entry
from flowd.store.making import Pin
from flowd.store.redis import keys
from flowd.store.tasks import Claim, Exchange
from flowd.workflow.children import Parent
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.graph import Plan, compile_plan
from flowd.workflow.ids import DEFAULT_QUEUE, child_id

WAIT_MAX_S = 180.0
HOUR_MS = 3_600_000
STREAM, GROUP = "workflow:tasks", "workflow_group"

# Node id -> ids of its dependencies, or what is written of it; with `finally`, where it stands.
Graph = Mapping[str, Sequence[str] | Mapping[str, Any]]
CHAIN: Graph = {"a": [], "b": ["a"], "c": ["b"]}
DIAMOND: Graph = {"a": [], "b": ["a"], "c": ["a"], "d": ["b", "c"]}


def fan(width: int) -> Graph:
    """One node, `width` that wait for it, and one that waits for all of those."""
    middle = [f"m{number}" for number in range(width)]
    return {"first": [], **{one: ["first"] for one in middle}, "last": middle}


@dataclass
class State:
    """All that Redis holds of one execution; what a test leaves out has to be empty.

    `is_active` need not be said where it follows from the contract: active means RUNNING or PAUSED.
    `waiting` are the nodes that wait for a further attempt, or for a date, `alarms` those that wait
    for a moment. Entries read `b#2` for attempt 2 of b, `gpu/b#2` in another queue, attempts `#2
    ended on w1`, waits `1 date` and decisions `1 date ` for the first wait of a node.
    """

    status: str | None
    nodes: dict[str, str | None]
    counters: dict[str, str]
    outputs: dict[str, Any] = field(default_factory=dict)
    attempts: dict[str, str] = field(default_factory=dict)
    queued: list[str] = field(default_factory=list)
    held: dict[str, list[str]] = field(default_factory=dict)
    orphaned: list[str] = field(default_factory=list)
    continuations: list[str] = field(default_factory=list)
    dead_letters: list[str] = field(default_factory=list)
    waiting: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)
    waits: dict[str, str] = field(default_factory=dict)
    decisions: dict[str, str] = field(default_factory=dict)
    parked: dict[str, str] = field(default_factory=dict)
    is_active: bool | None = None

    def __post_init__(self) -> None:
        if self.is_active is None:
            self.is_active = self.status in ("RUNNING", "PAUSED", "CANCELLING")


def outputs_of(*node_ids: str) -> dict[str, Any]:
    """The outputs of nodes that a `Worker` has completed."""
    return {node_id: {"node": node_id} for node_id in node_ids}


def failed_by(failed: str, *node_ids: str) -> dict[str, Any]:
    """The outputs of nodes that were failed because `failed`, upstream of them, was."""
    error = f"not run: it depends on {failed!r}, which failed"
    return {node_id: {"error": error} for node_id in node_ids}


@dataclass(frozen=True)
class Execution:
    id: str
    plan: Plan
    _redis: redis_py.Redis

    def key(self, rest: str = "") -> str:
        return f"workflow:{self.id}{rest}"

    def state(self) -> State:
        """What Redis holds of this execution now."""
        redis = self._redis
        node_ids = list(self.plan.nodes)
        run = redis.hgetall(self.key(":run"))
        times = {"submitted_ms", "triggered_ms"}
        attempts = redis.hgetall(self.key(":attempts"))
        outputs = redis.mget([keys.output(self.id, one) for one in node_ids])
        states = redis.mget([keys.node(self.id, one) for one in node_ids])
        continuations = [one.split(" ") for one in redis.zrange(keys.CONTINUATIONS, 0, -1)]
        state = State(
            status=redis.get(self.key(":status")),
            nodes=dict(zip(node_ids, states, strict=True)),
            counters={
                name: "set" if name == "finished_ms" else value
                for name, value in run.items()
                if name not in {"name", "nodes", "plan", "roots", "failure"} | times
            },
            outputs={
                one: orjson.loads(text)
                for one, text in zip(node_ids, outputs, strict=True)
                if text is not None
            },
            attempts={one: _attempt(record) for one, record in attempts.items()},
            continuations=[
                f"{verb} {''.join(node)}".rstrip()
                for verb, execution_id, *node in continuations
                if execution_id == self.id
            ],
            waiting=self._dated(keys.RETRIES),
            alarms=self._dated(keys.ALARMS),
            waits={
                one: " ".join([*text.split(" ")[:2], *text.split(" ", 4)[4:]]).rstrip()
                for one, text in redis.hgetall(self.key(":waits")).items()
            },
            decisions={
                one: " ".join([*text.split(" ")[:2], text.split(" ", 3)[3]])
                for one, text in redis.hgetall(self.key(":decisions")).items()
            },
            parked=redis.hgetall(self.key(":parked")),
            dead_letters=[
                fields["node_id"]
                for _, fields in redis.xrange(keys.DEAD_LETTERS)
                if fields.get("execution_id") == self.id
            ],
            is_active=bool(redis.sismember(keys.ACTIVE, self.id)),
        )
        self._place_entries(state)
        return state

    def _dated(self, key: str) -> list[str]:
        members = self._redis.zrange(key, 0, -1)
        return [one.partition(" ")[2] for one in members if one.startswith(self.id)]

    def _place_entries(self, state: State) -> None:
        for queue in (DEFAULT_QUEUE, *self._redis.smembers(keys.QUEUES)):
            self._place_entries_of(queue, state)

    def _place_entries_of(self, queue: str, state: State) -> None:
        stream = keys.task_stream(STREAM, queue)
        last_delivered, holders = _group_view(self._redis, stream)
        for entry_id, fields in self._redis.xrange(stream):
            entry = parse_entry(
                name_in(queue, entry_id), [part for pair in fields.items() for part in pair]
            )
            if not isinstance(entry, Entry) or entry.execution_id != self.id:
                continue
            if entry_id in holders:
                state.held.setdefault(holders[entry_id], []).append(_label(entry))
            elif _order(entry_id) <= last_delivered:
                state.orphaned.append(_label(entry))
            else:
                state.queued.append(_label(entry))

    def state_of(self, node_id: str) -> str | None:
        return self._redis.get(keys.node(self.id, node_id))

    def states(self) -> dict[str, int]:
        """How many nodes are in each state: what there is to say of a thousand of them."""
        counts: dict[str, int] = {}
        for state in self._redis.mget([keys.node(self.id, one) for one in self.plan.nodes]):
            counts[state] = counts.get(state, 0) + 1
        return counts


def _group_view(redis: redis_py.Redis, stream: str) -> tuple[tuple[int, int], dict[str, str]]:
    """The last entry that was delivered, and who holds which."""
    if not redis.exists(stream):
        return (0, 0), {}
    groups = [group for group in redis.xinfo_groups(stream) if group["name"] == GROUP]
    if not groups:
        return (0, 0), {}
    rows = redis.xpending_range(stream, GROUP, "-", "+", 100_000)
    holders = {row["message_id"]: row["consumer"] for row in rows}
    return _order(groups[0]["last-delivered-id"]), holders


def _order(entry_id: str) -> tuple[int, int]:
    ms, _, sequence = entry_id.partition("-")
    return int(ms), int(sequence)


def _label(entry: Entry) -> str:
    deaths = f" after {entry.deaths} deaths" if entry.deaths else ""
    queue = "" if entry.queue == DEFAULT_QUEUE else f"{entry.queue}/"
    return f"{queue}{entry.node_id}#{entry.attempt}{deaths}"


def _attempt(record: str) -> str:
    attempt, queued_ms, waited_ms, ran_ms, consumer = record.split(" ", 4)
    assert queued_ms.isdecimal(), record
    if consumer == "-":
        return f"#{attempt} queued"
    if waited_ms == "-":
        return f"#{attempt} given up on {consumer}"
    return f"#{attempt} {'runs' if ran_ms == '-' else 'ended'} on {consumer}"


class Worker:
    """One consumer, and what it says to the store; it knows every plan and has no handlers."""

    def __init__(
        self, store: Store, name: str, plans: dict[str, Plan], queues: Sequence[str]
    ) -> None:
        self.name = name
        self.session = store.tasks.open_session(name, queues)
        self._plans = plans

    async def exchange(
        self,
        completions: Sequence[Advance] = (),
        failures: Sequence[Single] = (),
        claims: Sequence[Claim] = (),
        *,
        read_max: int = 0,
    ) -> Exchange:
        return await self.session.complete_and_claim(completions, failures, claims, read_max)

    async def take(self, count: int = 10_000) -> list[Entry]:
        """New entries, in the order of the stream."""
        entries = (await self.exchange(read_max=count)).entries
        assert all(isinstance(entry, Entry) for entry in entries), entries
        return entries  # type: ignore[return-value]

    async def take_one(self) -> Entry:
        (entry,) = await self.take(1)
        return entry

    async def complete(self, *entries: Entry) -> list[str]:
        return (await self.exchange([self.completion(entry) for entry in entries])).completed

    async def fail(self, entry: Entry) -> str:
        (outcome,) = (await self.exchange(failures=[self.failure(entry)])).failed
        return outcome

    async def skip(self, *entries: Entry) -> list[str]:
        return (await self.exchange([self.skipping(entry) for entry in entries])).completed

    async def allow(self, *entries: Entry) -> list[str]:
        """Say that these have failed, of nodes that may."""
        return (await self.exchange([self.allowed(entry) for entry in entries])).completed

    async def wait(self, entry: Entry, waker: str = "date", **said: Any) -> str:
        """Say that this waits: an hour, or for who is named."""
        (outcome,) = await self.wait_together([entry], waker, **said)
        return outcome

    async def wait_together(self, entries: list[Entry], waker: str, **said: Any) -> list[str]:
        said = {"due_ms": HOUR_MS, **said} if waker == "date" else said
        number = said.pop("number", 1)
        waits = [Wait(one, self._record(one, ran_ms=7), waker, number, **said) for one in entries]
        return (await self.exchange(failures=waits)).failed

    async def claim(self, *entries: Entry) -> list[str]:
        return (await self.exchange(claims=[self.start(entry) for entry in entries])).claimed

    def completion(self, entry: Entry) -> Completion:
        node = self._plans[entry.plan_digest].node(entry.node_id)
        output = orjson.dumps({"node": entry.node_id})
        kind = ItemCompletion if node.is_item else Completion
        return kind(entry, node, self._record(entry, ran_ms=7), output)

    def failure(self, entry: Entry, dead_letter: str = "") -> Failure:
        plan = self._plans[entry.plan_digest]
        record = self._record(entry, ran_ms=7)
        failure = node_failure(plan, entry, record=record, error="boom", dead_letter=dead_letter)
        assert isinstance(failure, Failure)
        return failure

    def skipping(self, entry: Entry) -> Skip:
        node = self._plans[entry.plan_digest].nodes[entry.node_id]
        return Skip(entry, node, self._record(entry, ran_ms=0), f"{entry.node_id} is not".encode())

    def allowed(self, entry: Entry) -> AllowedFailure:
        plan = self._plans[entry.plan_digest]
        record = self._record(entry, ran_ms=7)
        failure = node_failure(plan, entry, record=record, error="boom", report=b'{"stderr": "x"}')
        assert isinstance(failure, AllowedFailure)
        return failure

    def start(self, entry: Entry) -> Claim:
        return Claim(entry, self._record(entry, ran_ms=None))

    def _record(self, entry: Entry, ran_ms: int | None) -> str:
        started_ms = entry.queued_ms + 3
        finished_ms = None if ran_ms is None else started_ms + ran_ms
        return attempt_record(entry, self.name, started_ms, finished_ms)


class ScriptedEngine:
    """Makes executions and workers on one store, and closes what it has opened."""

    def __init__(self, store: Store, redis: redis_py.Redis) -> None:
        self.store = store
        self._redis = redis
        self._plans: dict[str, Plan] = {}
        self._workers: list[Worker] = []

    def know(self, graph: Graph, **document: Any) -> tuple[bytes, Plan]:
        """As `compiled`, of what workers will meet."""
        definition, plan = compiled(graph, **document)
        self._plans[plan.digest] = plan
        return definition, plan

    async def submit(self, graph: Graph, **document: Any) -> Execution:
        """`document` is what the workflow says besides."""
        definition, plan = self.know(graph, **document)
        execution_id = await self.store.submissions.submit_workflow(definition, plan)
        return Execution(execution_id, plan, self._redis)

    async def start(self, graph: Graph) -> Execution:
        """Submit and trigger. Roots that are too many for one call are still to be opened."""
        execution = await self.submit(graph)
        await self.store.executions.trigger_workflow(execution.id)
        return execution

    async def start_and_take(self, graph: Graph, worker: Worker) -> tuple[Execution, list[Entry]]:
        execution = await self.start(graph)
        return execution, await worker.take()

    async def start_child(
        self, parent: Execution, node_id: str, graph: Graph, number: int = 1, **said: Any
    ) -> tuple[str, Execution]:
        """The outcome, and the child a node has for its wait of this number."""
        definition, plan = self.know(graph, **said.pop("document", {}))
        wanted = Parent(parent.id, node_id, number)
        execution_id = child_id(*wanted)
        saved = keys.saved_definition("report")
        self._redis.hset(saved, "digest:1", plan.digest)
        pin = said.pop("pin", Pin("report", 1, is_latest=False, digest=plan.digest))
        workflow = ChildWorkflow(definition, plan, pin, has_looked=said.pop("has_looked", False))
        child = ChildStart(wanted, execution_id, **said)
        outcome = await self.store.submissions.start_child(workflow, child)
        self._redis.delete(saved)
        return outcome, Execution(execution_id, plan, self._redis)

    def worker(self, name: str = "w1", queues: Sequence[str] = (DEFAULT_QUEUE,)) -> Worker:
        worker = Worker(self.store, name, self._plans, queues)
        self._workers.append(worker)
        return worker

    async def finish(self, worker: Worker) -> None:
        """Let a worker complete everything there is."""
        while entries := await worker.take(COMMIT_MAX):
            await worker.complete(*entries)

    async def close(self) -> None:
        for worker in self._workers:
            await worker.session.close()


def compiled(graph: Graph, **document: Any) -> tuple[bytes, Plan]:
    """A stored definition of this graph, and its plan."""
    dag: dict[str, list[Any]] = {"nodes": [], "finally": []}
    for node_id, said in graph.items():
        written = {"id": node_id, "handler": "noop", **_written(said)}
        dag["finally" if written.pop("finally", False) else "nodes"].append(written)
    workflow = WorkflowDefinition.model_validate({"name": "test", "dag": dag, **document})
    definition = workflow.to_json()
    return definition, compile_plan(definition)


def _written(said: Sequence[str] | Mapping[str, Any]) -> Mapping[str, Any]:
    return said if isinstance(said, Mapping) else {"dependencies": list(said)}


@contextmanager
def configured(redis: redis_py.Redis, **options: object) -> Iterator[None]:
    """The server with other settings; `_` in a name stands for `-`."""
    names = {name.replace("_", "-"): value for name, value in options.items()}
    before = {name: redis.config_get(name)[name] for name in names}
    for name, value in names.items():
        redis.config_set(name, value)
    try:
        yield
    finally:
        for name, value in before.items():
            redis.config_set(name, value)


@contextmanager
def as_replica(redis: redis_py.Redis) -> Iterator[None]:
    """The server as a replica of one that is not there."""
    redis.execute_command("REPLICAOF", "127.0.0.1", "1")
    try:
        yield
    finally:
        redis.execute_command("REPLICAOF", "NO", "ONE")


def everything(redis: redis_py.Redis) -> dict[str, bytes | None]:
    """A picture of all keys: two that are equal mean that nothing was written in between."""
    found = list(redis.scan_iter(count=1_000))
    with redis.pipeline(transaction=False) as pipe:
        for key in found:
            pipe.dump(key)
        return dict(zip(found, pipe.execute(), strict=True))


async def until(is_true: Callable[[], bool]) -> None:
    """Wait for something that happens in the server, which tells nobody."""
    async with asyncio.timeout(WAIT_MAX_S):
        while not is_true():  # noqa: ASYNC110
            await asyncio.sleep(0.002)


async def until_blocked(redis: redis_py.Redis, clients: int = 1) -> None:
    """Wait until so many clients block on the server."""
    await until(lambda: redis.info("clients")["blocked_clients"] == clients)


async def finish_continuations(store: Store, plans: Plans) -> None:
    """As a scheduler to which whoever began what is left for later counts as dead."""
    duty = FinishContinuations(store, plans, 0)
    await duty.run(0.0)
    await duty.run(SUBMISSION_OVERDUE_S)


async def results_of(store: Store, execution_id: str) -> dict[str, Any]:
    """The output of every node that has one, by node id."""
    node_ids = await store.executions.node_ids(execution_id)
    found = await store.open_results(execution_id, node_ids)
    results: dict[str, Any] = orjson.loads(await found.read())
    return results


async def run_rounds(reconciler: Reconciler, rounds: int = 1) -> bool:
    """Whole rounds; True when no further round has to follow at once."""
    is_quiet = False
    for _ in range(rounds):
        is_quiet = await reconciler.run_slice()
        while reconciler._round is not None:
            is_quiet = await reconciler.run_slice()
    return is_quiet
