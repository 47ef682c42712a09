"""Random graphs under random misfortune: the same end, by whatever way it was reached.

The checker of the soak in small: one commit per node, no node before its dependencies, attempts
strictly rising, an entry for exactly the outstanding nodes, and nothing left at the end.
"""

from __future__ import annotations

import random
from itertools import pairwise
from typing import Any

import pytest

from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import ensure_groups, recover_orphans, recover_worker
from flowd.scheduler.reconciler import Reconciler
from flowd.store.entries import Entry
from flowd.store.redis import keys
from flowd.workflow.graph import PlannedNode
from tests.store.engine import GROUP, STREAM, Execution, Graph, ScriptedEngine, Worker

EXECUTIONS = 6
STEPS_MAX = 3_000
# What is written of a node that chooses; mostly nothing.
CHOICES: tuple[dict[str, Any], ...] = (
    *({}, {}, {"when": "true"}, {"allow_failure": True}),
    *({"after": after} for after in ("completed", "failed", "ended")),
)


def random_graph(choose: random.Random) -> Graph:
    graph: dict[str, dict[str, Any]] = {}
    chooses = choose.random() < 0.5
    for number in range(choose.randint(1, 14)):
        count = choose.randint(0, min(4, number))
        above = [f"n{one}" for one in choose.sample(range(number), count)]
        written = choose.choice(CHOICES) if chooses else {}
        graph[f"n{number}"] = {"dependencies": above, **written}
    return graph


class Misfortune:
    """Workers that complete, fail, say things twice, are late, or die, as `choose` has it."""

    def __init__(self, engine: ScriptedEngine, redis, choose: random.Random) -> None:
        self.engine = engine
        self.redis = redis
        self.choose = choose
        self.plans = Plans(engine.store)
        self.reconciler = Reconciler(engine.store, self.plans)
        self.workers: list[Worker] = [engine.worker(f"w{number}") for number in range(3)]
        self.held: dict[str, list[Entry]] = {worker.name: [] for worker in self.workers}
        self.late: list[Entry] = []
        self.commits: dict[tuple[str, str], list[str]] = {}
        self.attempts: dict[tuple[str, str], list[int]] = {}
        self.lives = len(self.workers)

    async def step(self) -> None:
        acts = [self.take] * 4 + [self.complete] * 6 + [self.fail, self.claim, self.die]
        acts += [self.skip] * 2
        acts += [self.repeat, self.be_late, self.flush_scripts, self.lose_group, self.lose_entry]
        await self.choose.choice(acts)(self.choose.choice(self.workers))

    async def take(self, worker: Worker) -> None:
        for entry in await worker.take(self.choose.randint(1, 4)):
            node = (entry.execution_id, entry.node_id)
            self.attempts.setdefault(node, []).append(entry.attempt)
            self.held[worker.name].append(entry)

    def some_of(self, worker: Worker) -> list[Entry]:
        held = self.held[worker.name]
        return self.choose.sample(held, self.choose.randint(0, len(held)))

    async def complete(self, worker: Worker) -> None:
        entries = self.some_of(worker)
        if entries:
            self.note(worker, entries, await worker.complete(*entries))

    async def fail(self, worker: Worker) -> None:
        entries = self.some_of(worker)[:1]
        if entries and self.choose.random() < 0.5:
            verb = "allowed" if self.may_fail(entries[0]) else "failed"
            self.note(worker, entries, [await self.say_failed(worker, entries[0])], verb)

    def node_of(self, entry: Entry) -> PlannedNode:
        return self.engine._plans[entry.plan_digest].nodes[entry.node_id]

    def may_fail(self, entry: Entry) -> bool:
        return self.node_of(entry).allow_failure

    async def say_failed(self, worker: Worker, entry: Entry) -> str:
        if not self.may_fail(entry):
            return await worker.fail(entry)
        (outcome,) = await worker.allow(entry)
        return outcome

    async def skip(self, worker: Worker) -> None:
        entries = [one for one in self.some_of(worker) if self.node_of(one).choice is not None]
        if entries:
            self.note(worker, entries, await worker.skip(*entries), "skipped")

    def note(self, worker, entries, outcomes, verb="completed") -> None:
        for entry, outcome in zip(entries, outcomes, strict=True):
            if outcome in ("completed", "failed", "finished"):
                node = (entry.execution_id, entry.node_id)
                self.commits.setdefault(node, []).append(verb)
            else:
                assert outcome == "stale"
            self.held[worker.name].remove(entry)
            self.late.append(entry)

    async def claim(self, worker: Worker) -> None:
        entries = self.some_of(worker)
        if entries:
            assert set(await worker.claim(*entries)) <= {"claimed", "stale"}

    async def repeat(self, worker: Worker) -> None:
        """Replies were lost: say again what was said, and read back what came."""
        for entry in self.late[-5:]:
            assert await worker.complete(entry) == ["stale"]
        own = await worker.session.own_entries()
        assert set(own) <= set(self.held[worker.name])

    async def be_late(self, worker: Worker) -> None:
        if self.late:
            entry = self.choose.choice(self.late)
            assert await self.say_failed(worker, entry) == "stale"
            assert await worker.complete(entry) == ["stale"]

    async def die(self, worker: Worker) -> None:
        is_blamed = self.choose.random() < 0.2
        await recover_worker(
            self.engine.store, self.plans, worker.name, "killed", is_blamed=is_blamed
        )
        self.late += self.held.pop(worker.name)
        self.lives += 1
        successor = self.engine.worker(f"w{self.lives}")
        self.workers[self.workers.index(worker)] = successor
        self.held[successor.name] = []

    async def flush_scripts(self, _worker: Worker) -> None:
        self.redis.script_flush()

    async def lose_group(self, _worker: Worker) -> None:
        if self.choose.random() < 0.2:
            self.redis.xgroup_destroy(STREAM, GROUP)
            await ensure_groups(self.engine.store, self.plans)

    async def lose_entry(self, _worker: Worker) -> None:
        """A hand in what nobody has taken yet; two rounds later it is mended."""
        held = {entry.name for entries in self.held.values() for entry in entries}
        waiting = [one for one, _ in self.redis.xrange(STREAM) if one not in held]
        if waiting and self.choose.random() < 0.2:
            self.redis.xdel(STREAM, self.choose.choice(waiting))
            for _ in range(2):
                await self.reconciler.run_slice()
                while self.reconciler._round is not None:
                    await self.reconciler.run_slice()


def outstanding(redis, executions: list[Execution]) -> set[tuple[str, str]]:
    nodes = [(one.id, node_id) for one in executions for node_id in one.plan.nodes]
    states = redis.mget([keys.node(*node) for node in nodes])
    found = zip(nodes, states, strict=True)
    return {node for node, state in found if state in ("QUEUED", "RUNNING")}


STATES = {"completed": "COMPLETED", "skipped": "SKIPPED"}


def in_stream(redis) -> list[tuple[str, str]]:
    return [(fields["execution_id"], fields["node_id"]) for _, fields in redis.xrange(STREAM)]


def expected_states(execution: Execution, graph: Graph, commits) -> dict[str, str]:
    """What must have become of each node, from what the nodes themselves came to."""
    states: dict[str, str] = {}
    allowed: set[str] = set()
    for node_id, written in graph.items():
        failed = [
            one for one in written["dependencies"] if states[one] == "FAILED" and one not in allowed
        ]
        if failed and "after" not in written:
            assert (execution.id, node_id) not in commits
            states[node_id] = "FAILED"
            continue
        # Who is given up and may fail is no dead letter.
        (verb,) = commits.get((execution.id, node_id), ["allowed"])
        states[node_id] = STATES.get(verb, "FAILED")
        if verb == "allowed":
            assert written.get("allow_failure")
            allowed.add(node_id)
    return {one: "ALLOWED" if one in allowed else state for one, state in states.items()}


@pytest.mark.parametrize("seed", range(8))
async def test_every_execution_comes_to_its_end(engine, redis, seed):
    choose = random.Random(seed)
    graphs = [random_graph(choose) for _ in range(EXECUTIONS)]
    executions = [await engine.start(graph) for graph in graphs]
    fate = Misfortune(engine, redis, choose)

    steps = 0
    while redis.exists(keys.ACTIVE):
        await fate.step()
        assert sorted(in_stream(redis)) == sorted(outstanding(redis, executions))
        steps += 1
        assert steps < STEPS_MAX
    await recover_orphans(engine.store, fate.plans)

    for execution, graph in zip(executions, graphs, strict=True):
        given_up = {(execution.id, one) for one in execution.state().dead_letters}
        for node in given_up:
            fate.commits.setdefault(node, []).append("failed")
        state = execution.state()
        expected = expected_states(execution, graph, fate.commits)
        assert state.nodes == {
            one: "FAILED" if end == "ALLOWED" else end for one, end in expected.items()
        }
        assert state.status == ("FAILED" if "FAILED" in expected.values() else "COMPLETED")
        assert state.counters["remaining"] == "0"
        assert set(state.outputs) == {one for one, end in expected.items() if end != "SKIPPED"}
        assert state.continuations == []
    for attempts in fate.attempts.values():
        assert all(one < other for one, other in pairwise(attempts))
    assert redis.xlen(STREAM) == 0
    assert redis.xpending(STREAM, GROUP)["pending"] == 0
