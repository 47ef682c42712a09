"""Reruns with a corrected definition: what is reused, what runs, and what comes of it."""

from __future__ import annotations

import json
import random
from dataclasses import replace
from typing import Any

import pytest

from flowd.errors import UnknownNode, WrongState
from flowd.orchestrator.executor import trigger_workflow
from flowd.orchestrator.pinning import pin_versions
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.workflow.definition import WorkflowDefinition
from scripts.soaking.checker import find_violations
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, workflow
from tests.flow.test_any_workflow import Case, random_case
from tests.flow.test_children import call, engine_of, save
from tests.flow.test_finally import with_finally


async def rerun(
    engine: Engine, execution_id: str, corrected: WorkflowDefinition, start: str = "failed"
) -> tuple[Any, str]:
    """What was planned, and the new execution once it has ended."""
    planned = await plan_rerun(engine.store, execution_id, start, corrected.to_json())
    again = await rerun_execution(engine.store, planned)
    await trigger_workflow(engine.store, again)
    await engine.end(again)
    return planned, again


async def test_a_corrected_node_runs_and_what_is_unchanged_keeps_its_output(settings, redis):
    before = [
        node("A", x=1),
        node("B", ["A"], "fail"),
        node("C", ["B"], text="{{ B.x }}"),
        node("D", ["A"], x="{{ A.x }}"),
        node("gone", ["A"]),
    ]
    after = [before[0], node("B", ["A"], x=2), *before[2:4], node("E", ["D"], x="{{ D.x }}")]
    async with Engine(settings) as engine:
        first = await engine.run(workflow(*before))
        planned, second = await rerun(engine, first, workflow(*after))

        assert planned.runs == {
            "B": "was FAILED, and its handler and config changed",
            "C": "was FAILED",
            "E": "new",
        }
        unchanged = "unchanged, completed, and nothing it depends on runs again"
        assert planned.reused == {"A": unchanged, "D": unchanged}
        assert planned.correction.removed == ("gone",)
        assert sorted(calls(second)) == ["B", "C", "E"]
        assert (await engine.results(second)) == {
            "A": {"x": 1},
            "B": {"x": 2},
            "C": {"text": 2},
            "D": {"x": 1},
            "E": {"x": 1},
        }
        definition = json.loads(await engine.store.executions.definition(second))
        assert [one["id"] for one in definition["dag"]["nodes"]] == ["A", "B", "C", "D", "E"]
        assert find_violations(redis, [first, second]) == []


async def test_what_is_downstream_of_a_change_runs_and_the_rest_does_not(settings):
    before = [node("A", x=1), node("B", ["A"], x="{{ A.x }}"), node("C", x=3)]
    async with Engine(settings) as engine:
        first = await engine.run(workflow(*before))
        planned, second = await rerun(engine, first, workflow(node("A", x=2), *before[1:]))

        assert planned.runs == {"A": "its config changed", "B": "downstream of 'A', which runs"}
        assert await engine.results(second) == {"A": {"x": 2}, "B": {"x": 2}, "C": {"x": 3}}


async def test_a_node_with_new_dependencies_waits_for_them(settings):
    before = [node("A", x=1), node("B", x=5)]
    after = [node("A", x=1), node("N", ["A"], x="{{ A.x }}"), node("B", ["N", "A"], x="{{ N.x }}")]
    async with Engine(settings) as engine:
        first = await engine.run(workflow(*before))
        _, second = await rerun(engine, first, workflow(*after))

        assert calls(second) == ["N", "B"]
        assert (await engine.results(second))["B"] == {"x": 1}


async def test_a_correction_that_changes_no_output_runs_nothing_by_itself(settings):
    async with Engine(settings) as engine:
        first = await engine.run(workflow(node("A")))
        same = workflow({**node("A"), "retry": {"max_attempts": 3}})
        planned = await plan_rerun(engine.store, first, "failed", same.to_json())

        with pytest.raises(WrongState, match="changes no output; name the node to begin with"):
            await rerun_execution(engine.store, planned)
        _, second = await rerun(engine, first, same, "A")
        assert calls(second) == ["A"]


async def test_from_a_node_that_the_correction_has_removed_is_unknown(settings):
    async with Engine(settings) as engine:
        first = await engine.run(workflow(node("A"), node("B")))
        with pytest.raises(UnknownNode):
            await plan_rerun(engine.store, first, "B", workflow(node("A")).to_json())


async def test_a_node_that_may_not_fail_any_more_runs_again(settings):
    async with Engine(settings) as engine:
        first = await engine.run(workflow({**node("A", handler="fail"), "allow_failure": True}))
        planned, second = await rerun(engine, first, workflow(node("A", handler="fail")))

        assert planned.runs == {"A": "was FAILED"}
        assert str(await engine.end(second)) == "FAILED"


async def test_finally_runs_again_with_what_the_correction_made_of_it(settings, redis):
    async with Engine(settings) as engine:
        first = await engine.run(with_finally(node("A"), last=[node("z", x=1)]))
        corrected = with_finally(node("A"), last=[node("z", x=1), node("y", ["z"], x=2)])
        planned, second = await rerun(engine, first, corrected)

        assert planned.runs == {"z": "of `finally`, which always runs again", "y": "new"}
        assert calls(second) == ["z", "y"]
        assert str(await engine.end(second)) == "COMPLETED"
        assert find_violations(redis, [first, second]) == []


async def test_a_child_that_ended_well_stays_and_one_that_failed_is_made_of_the_latest(settings):
    nodes = [call("good", name="good"), call("bad", name="bad"), node("end", ["good", "bad"])]
    async with engine_of(settings) as engine:
        await save(engine, node("A"), name="good")
        await save(engine, node("A", handler="fail"), name="bad")
        pinned = await pin_versions(engine.store, workflow(*nodes).to_json())
        first = await engine.run(WorkflowDefinition.model_validate_json(pinned))
        await save(engine, node("B"), name="good")
        await save(engine, node("A"), name="bad")

        planned, second = await rerun(engine, first, workflow(*nodes))

        assert set(planned.reused) == {"good"}
        assert planned.runs == {"bad": "was FAILED", "end": "was FAILED"}
        assert str(await engine.end(second)) == "COMPLETED"
        stored = json.loads(await engine.store.executions.definition(second))
        assert [one["config"].get("version") for one in stored["dag"]["nodes"]] == [2, 2, None]


def fan(rows: list[Any], handler: str = "fated", **said: Any) -> list[dict[str, Any]]:
    mapped = node("fan", ["list"], handler, x="{{ item }}")
    return [
        node("list", rows=rows),
        {**mapped, "map": {"over": "{{ list.rows }}", "concurrency": 2, **said}},
        node("end", ["fan"], n="{{ fan.count }}"),
    ]


@pytest.mark.parametrize(
    ("corrected", "ran"),
    [
        (fan([1, 2, 3]), {"fan.1"}),
        (fan([1, 2, 3], "echo"), {"fan.0", "fan.1", "fan.2"}),
        (fan([1, 2, 3], max_failed=1), {"fan.0", "fan.1", "fan.2"}),
        (fan([1, 2]), {"list", "fan.0", "fan.1"}),
    ],
)
async def test_the_items_of_a_map_run_as_far_as_they_are_changed(settings, redis, corrected, ran):
    try:
        async with Engine(settings) as engine:
            handlers.FATED.add("fan.1")
            first = await engine.run(workflow(*fan([1, 2, 3])))
            handlers.FATED.clear()
            _, second = await rerun(engine, first, workflow(*corrected))

            assert set(calls(second)) == ran | {"end"}
            assert str(await engine.end(second)) == "COMPLETED"
            assert find_violations(redis, [first, second]) == []
    finally:
        handlers.FATED.clear()


def mutated(choose: random.Random, case: Case) -> Case:
    """Some nodes with another condition, other dependencies, or gone; and a new one."""
    nodes = {
        name: replace(one, dependencies=[*one.dependencies]) for name, one in case.nodes.items()
    }
    for name in list(nodes):
        luck = choose.random()
        if luck < 0.15:
            nodes[name].allow_failure = not nodes[name].allow_failure
        elif luck < 0.3 and nodes[name].dependencies:
            nodes[name].dependencies.pop()
            nodes[name].when = None
        elif luck < 0.4:
            nodes[name].after = choose.choice([None, "ended"])
        elif luck < 0.5 and nodes[name].rows is not None:
            nodes[name].rows = choose.randint(0, 4)
    nodes["extra"] = replace(next(iter(nodes.values())), dependencies=list(nodes)[:2], when=None)
    return Case(nodes, case.last, case.fated)


@pytest.mark.parametrize("seed", range(40))
async def test_any_corrected_rerun_ends_as_a_fresh_run_of_it_does(settings, redis, seed):
    """Where nobody fails any more and no state of a run before decides anything."""
    choose = random.Random(seed)
    case = random_case(choose)
    corrected = mutated(choose, case)
    for one in (*case.nodes.values(), *case.last.values(), *corrected.nodes.values()):
        if one.when and "state" in one.when:
            one.when = None
    try:
        async with Engine(settings) as engine:
            handlers.FATED |= {one for one in case.fated if choose.random() < 0.5}
            first = await engine.run(case.definition())
            handlers.FATED.clear()
            for one in (*case.nodes.values(), *corrected.nodes.values()):
                one.allow_failure = False
            planned, second = await rerun(engine, first, corrected.definition())
            fresh = await engine.run(corrected.definition())

            assert await engine.states(second) == await engine.states(fresh)
            assert set(await engine.results(second)) == set(await engine.results(fresh))
            assert {one.split(".")[0] for one in calls(second)} <= set(planned.runs)
            assert find_violations(redis, [first, second, fresh]) == []
    finally:
        handlers.FATED.clear()
