"""However a workflow chooses, maps and cleans up, it ends as a naive reference has it."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from flowd.errors import WrongState
from flowd.orchestrator.executor import (
    cancel_execution,
    pause_execution,
    resume_execution,
    trigger_workflow,
)
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.workflow.definition import WorkflowDefinition
from scripts.soaking.checker import find_violations
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until
from tests.flow.test_finally import with_finally

COMPLETED, SKIPPED, FAILED, CANCELLED = "COMPLETED", "SKIPPED", "FAILED", "CANCELLED"
ROWS_MAX = 4


@dataclass
class Written:
    """What is said of a node; one with `map` has this many `rows`."""

    dependencies: list[str]
    after: str | None
    when: str | None
    allow_failure: bool
    rows: int | None = None
    map: dict[str, Any] = field(default_factory=dict)

    def document(self, node_id: str) -> Any:
        fields = {"after": self.after, "when": self.when, "allow_failure": self.allow_failure}
        if self.rows is not None:
            fields["map"] = {"over": f"{{{{ input.rows[{self.rows}] }}}}", **self.map}
        written = {name: value for name, value in fields.items() if value not in (None, False)}
        return node(node_id, self.dependencies, "fated") | written

    def calls(self, node_id: str, fated: Collection[str], done: Collection[str]) -> list[str]:
        """Of itself, or of the items that are not done; failing fast, as far as that goes."""
        if self.rows is None:
            return [node_id]
        called: list[str] = []
        for item in (f"{node_id}.{index}" for index in range(self.rows)):
            if item not in done and not (self.map["fail_fast"] and self.has_failed(called, fated)):
                called.append(item)
        return called

    def has_failed(self, called: Collection[str], fated: Collection[str]) -> bool:
        return len(set(called) & set(fated)) > self.map.get("max_failed", 0)


Nodes = Mapping[str, Written]


@dataclass
class Case:
    nodes: Nodes
    last: Nodes
    fated: set[str]

    def definition(self) -> WorkflowDefinition:
        nodes, last = (
            [one.document(name) for name, one in some.items()] for some in (self.nodes, self.last)
        )
        rows = [list(range(size)) for size in range(ROWS_MAX + 1)]
        return with_finally(*nodes, last=last, input={"rows": rows})


def random_case(choose: random.Random) -> Case:
    nodes = _random_nodes(choose, "n", choose.randint(1, 12), ())
    last = _random_nodes(choose, "z", choose.randint(0, 4), tuple(nodes))
    both = [*nodes, *(f"{one}.{at}" for one in (*nodes, *last) for at in range(ROWS_MAX)), *last]
    return Case(nodes, last, {one for one in both if choose.random() < 0.3})


def _random_nodes(choose: random.Random, name: str, count: int, others: tuple[str, ...]) -> Nodes:
    """`others` are read without being waited for."""
    nodes: dict[str, Written] = {}
    for number in range(count):
        above = choose.sample(list(nodes), choose.randint(0, min(3, number)))
        reads = [f"state.{one} == 'FAILED'" for one in (*above, *others[:3])]
        nodes[f"{name}{number}"] = written = Written(
            above,
            choose.choice([None, None, "completed", "failed", "ended"]),
            choose.choice([None, None, None, choose.choice(["true", "false", *reads])]),
            choose.random() < 0.2,
        )
        if choose.random() < 0.3:
            fails_fast = choose.random() < 0.5
            written.rows = choose.randint(0, ROWS_MAX)
            written.map = {"max_failed": choose.randint(0, 2), "fail_fast": fails_fast}
            # One at a time, or how far it comes is a matter of luck.
            written.map["concurrency"] = 1 if fails_fast else choose.randint(1, 3)
    return nodes


@dataclass
class Outcome:
    """Of each node its state and how that arrives; the handler calls, of nodes and of items, and
    those of them that went well."""

    states: dict[str, str] = field(default_factory=dict)
    arrives: dict[str, str] = field(default_factory=dict)
    called: list[str] = field(default_factory=list)
    done: set[str] = field(default_factory=set)

    @property
    def status(self) -> str:
        return FAILED if FAILED in self.arrives.values() else COMPLETED

    def keep(self, node_id: str, before: Outcome) -> None:
        self.states[node_id], self.arrives[node_id] = (
            before.states[node_id],
            before.arrives[node_id],
        )

    def run(
        self, node_id: str, written: Written, fated: Collection[str], done: Collection[str]
    ) -> None:
        called = written.calls(node_id, fated, done)
        state = FAILED if written.has_failed(called, fated) else COMPLETED
        self.states[node_id] = state
        self.arrives[node_id] = COMPLETED if written.allow_failure else state
        self.called += called
        self.done |= set(called) - set(fated)


def expected(
    nodes: Nodes, fated: Collection[str], states: Mapping[str, str], before: Outcome | None = None
) -> Outcome:
    """Rule by rule, in the graph's order; `states` are those of nodes that are not waited for. What
    failed `before` runs again with all that is behind it; of a list that is the same, what failed.
    """
    outcome, runs = Outcome(), set[str]()
    for node_id, written in nodes.items():
        is_anew = before is None or not runs.isdisjoint(written.dependencies)
        if not is_anew and before and before.arrives[node_id] != FAILED:
            outcome.keep(node_id, before)
            continue
        runs.add(node_id)
        above = [outcome.arrives[one] for one in written.dependencies]
        decided = _decided(written, above, {**states, **outcome.states})
        if decided is not None:
            outcome.states[node_id] = outcome.arrives[node_id] = decided
        else:
            outcome.run(node_id, written, fated, before.done if before and not is_anew else ())
    return outcome


def _decided(written: Written, above: list[str], states: Mapping[str, str]) -> str | None:
    """None for a node that runs."""
    if written.after == "failed" and above and FAILED not in above:
        return SKIPPED
    if written.after in (None, "completed"):
        if FAILED in above:
            return FAILED
        if above and COMPLETED not in above:
            return SKIPPED
    if written.when is None or written.when == "true":
        return None
    read = written.when.partition(".")[2].partition(" ")[0]
    return None if read and states[read] == FAILED else SKIPPED


async def ends_as_expected(
    engine: Engine, execution_id: str, case: Case, before: Outcome | None = None
) -> Outcome:
    """The others by their rules, then those of `finally` by the same, as if they were alone."""
    outcome = expected(case.nodes, case.fated, {}, before)
    last = expected(case.last, case.fated, outcome.states)
    status = FAILED if FAILED in (outcome.status, last.status) else COMPLETED
    assert str(await engine.end(execution_id)) == status
    assert await engine.states(execution_id) == outcome.states | last.states
    made = calls(execution_id)
    assert sorted(made[: len(outcome.called)]) == sorted(outcome.called)
    assert sorted(made[len(outcome.called) :]) == sorted(last.called)
    return outcome


@pytest.fixture
def random_fate(seed):
    choose = random.Random(seed)
    case = random_case(choose)
    yield choose, case
    handlers.FATED.clear()


@pytest.mark.parametrize("seed", range(80))
async def test_any_workflow_ends_as_the_rules_say_and_so_does_its_rerun(
    settings, redis, random_fate
):
    _, case = random_fate
    async with Engine(settings) as engine:
        handlers.FATED |= case.fated
        execution_id = await engine.run(case.definition())
        outcome = await ends_as_expected(engine, execution_id, case)
        again = execution_id
        if await engine.end(execution_id) == FAILED:
            handlers.FATED.clear()
            planned = await plan_rerun(engine.store, execution_id, "failed")
            again = await rerun_execution(engine.store, planned)
            await trigger_workflow(engine.store, again)
            await ends_as_expected(engine, again, replace(case, fated=set()), outcome)
        assert find_violations(redis, [execution_id, again]) == []


@pytest.mark.parametrize("seed", range(30))
async def test_however_it_is_paused_and_cancelled_finally_runs_last_and_all_of_it(
    settings, redis, random_fate
):
    choose, case = random_fate
    async with Engine(settings) as engine:
        handlers.FATED |= case.fated
        execution_id = await engine.start(case.definition())
        outcome = expected(case.nodes, case.fated, {})
        at = choose.randint(0, len(outcome.called))
        await until(lambda: len(calls(execution_id)) >= at, "that many calls")
        orders = (pause_execution, resume_execution, cancel_execution)
        for order in (*choose.choices(orders, k=3), resume_execution):
            with contextlib.suppress(WrongState):
                await order(engine.store, execution_id)
        if await engine.end(execution_id) != CANCELLED:
            await ends_as_expected(engine, execution_id, case)
        else:
            states = await engine.states(execution_id)
            last = expected(case.last, case.fated, states)
            assert states | last.states == states
            made = calls(execution_id)
            before = made[: len(made) - len(last.called)]
            assert sorted(made[len(before) :]) == sorted(last.called)
            assert len(set(before)) == len(before)
            assert set(before) <= set(outcome.called)
        assert find_violations(redis, [execution_id]) == []
