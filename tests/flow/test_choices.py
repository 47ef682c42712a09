"""Nodes that choose: whether they run, and what becomes of the others."""

from __future__ import annotations

import json
from typing import Any

import orjson

from flowd.cli.samples import load_samples
from flowd.handlers.registry import built_in_registry
from flowd.orchestrator.executor import cancel_execution, trigger_workflow
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.store.redis import keys
from flowd.workers.large_inputs import SMALL_BYTES_MAX
from flowd.workflow.definition import WorkflowDefinition
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until, workflow
from tests.manual import blocks
from tests.redis_calls import listen_to_calls

COMPLETED, SKIPPED, FAILED = "COMPLETED", "SKIPPED", "FAILED"


def choosing(node_id: str, *dependencies: str, fails: bool = False, **fields: Any) -> Any:
    handler = "fail" if fails else "echo"
    return node(node_id, dependencies, handler) | fields


async def outcome(engine: Engine, *nodes: Any, **fields: Any) -> tuple[str, dict[str, str]]:
    """How the execution and its nodes end."""
    execution_id = await engine.run(workflow(*nodes, **fields))
    return str(await engine.end(execution_id)), await engine.states(execution_id)


async def test_a_node_below_a_skipped_one_is_skipped_and_never_run(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(choosing("A"), choosing("B", "A", when="false"), choosing("C", "B"))
        )
        assert await engine.states(execution_id) == {"A": COMPLETED, "B": SKIPPED, "C": SKIPPED}
        assert calls(execution_id) == ["A"]
        assert (await engine.results(execution_id)).keys() == {"A"}
        assert str(await engine.end(execution_id)) == COMPLETED


async def test_who_has_been_told_what_has_arrived_does_not_ask(settings, monkeypatch):
    """B follows what surely completes, and the entry of D says it."""
    asked = []

    async def listener(commands, ask):
        asked.extend(command for command in commands if "arrived:" in str(command))
        return await ask()

    listen_to_calls(monkeypatch, listener)
    async with Engine(settings) as engine:
        nodes = [choosing("A"), choosing("B", "A", when="false"), choosing("C", "A")]
        status, states = await outcome(engine, *nodes, choosing("D", "B", "C"))
        assert (status, states["D"]) == (COMPLETED, COMPLETED)
        assert asked == []
        # Where both complete, nothing is told, and D has to ask.
        nodes[1]["when"] = "true"
        assert (await outcome(engine, *nodes, choosing("D", "B", "C")))[0] == COMPLETED
        assert len(asked) == 1


async def test_a_join_with_one_skipped_arm_runs_once_after_the_other_has_ended(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(
            workflow(
                choosing("A"),
                choosing("B", "A", when="false"),
                node("C", ["A"], "held"),
                choosing("D", "B", "C"),
            )
        )
        await until(lambda: "C" in handlers.GATES, "C to run")
        assert "D" not in calls(execution_id)
        handlers.GATES["C"].set()
        assert str(await engine.end(execution_id)) == COMPLETED
        assert (await engine.states(execution_id))["B"] == SKIPPED
        assert calls(execution_id) == ["A", "C", "D"]


async def test_nodes_run_below_a_skip_that_is_far_above_when_a_node_between_ran(settings):
    async with Engine(settings) as engine:
        _, states = await outcome(
            engine,
            choosing("far", when="false"),
            choosing("other"),
            choosing("between", "far", "other"),
            choosing("below", "between"),
        )
        assert states == {
            "far": SKIPPED,
            "other": COMPLETED,
            "between": COMPLETED,
            "below": COMPLETED,
        }


async def test_a_false_condition_skips_a_node_whose_config_cannot_be_rendered(settings):
    async with Engine(settings) as engine:
        reader = node("B", ["A"], x="{{ A.gone }}") | {"when": "false"}
        status, states = await outcome(engine, choosing("A"), reader)
        assert (status, states["B"]) == (COMPLETED, SKIPPED)


async def test_an_execution_all_of_whose_nodes_are_skipped_is_completed(settings):
    async with Engine(settings) as engine:
        nodes = [choosing("A", when="false"), choosing("B", "A"), choosing("C", "A", "B")]
        status, states = await outcome(engine, *nodes)
        assert (status, set(states.values())) == (COMPLETED, {SKIPPED})


async def test_a_failure_handler_below_a_plain_node_that_failed_for_another_runs_once(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(
                choosing("X", fails=True),
                choosing("plain", "X"),
                choosing("J", "plain", after="failed"),
            )
        )
        assert await engine.states(execution_id) == {"X": FAILED, "plain": FAILED, "J": COMPLETED}
        assert calls(execution_id) == ["X", "J"]
        assert str(await engine.end(execution_id)) == FAILED


async def test_a_failure_handler_of_what_went_well_is_skipped(settings):
    async with Engine(settings) as engine:
        nodes = [choosing("A"), choosing("notify", "A", after="failed")]
        assert await outcome(engine, *nodes) == (COMPLETED, {"A": COMPLETED, "notify": SKIPPED})


async def test_a_failure_handler_reads_what_failed_with_a_default(settings):
    async with Engine(settings) as engine:
        notify = node("notify", ["A"], text='{{ A.error | default("") }}') | {"after": "failed"}
        execution_id = await engine.run(workflow(choosing("A", fails=True), notify))
        results = await engine.results(execution_id)
        assert results["notify"] == {"text": "RuntimeError: no luck"}


async def test_an_allowed_failure_is_completed_to_its_dependents_and_its_own_only(settings):
    async with Engine(settings) as engine:
        status, states = await outcome(
            engine,
            choosing("A", fails=True, allow_failure=True),
            choosing("B", "A"),
        )
        assert (status, states) == (COMPLETED, {"A": FAILED, "B": COMPLETED})
        status, states = await outcome(
            engine,
            choosing("X", fails=True),
            choosing("Y", "X", allow_failure=True),
            choosing("Z", "Y"),
        )
        assert (status, set(states.values())) == (FAILED, {FAILED})


async def test_what_a_rerun_left_out_is_no_allowed_failure_to_the_next_one(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(
                choosing("X", fails=True),
                choosing("may", "X", allow_failure=True),
                choosing("other"),
                choosing("J", "may", "other", after="ended"),
            )
        )
        planned = await plan_rerun(engine.store, execution_id, "other")
        assert set(planned.left_out) == {"X", "may"}
        second = await rerun_execution(engine.store, planned)
        await trigger_workflow(engine.store, second)
        assert str(await engine.end(second)) == FAILED

        again = await plan_rerun(engine.store, second, "failed")

        assert set(again.runs) == {"X", "may", "J"}
        assert set(again.reused) == {"other"}


async def test_an_allowed_failure_stays_one_through_reruns_of_reruns(settings):
    async with Engine(settings) as engine:
        nodes = [choosing("may", fails=True, allow_failure=True), choosing("bad", fails=True)]
        execution_id = await engine.run(workflow(*nodes, choosing("below", "may")))
        for _ in range(2):
            planned = await plan_rerun(engine.store, execution_id, "failed")
            assert set(planned.runs) == {"bad"}
            assert planned.reused["may"].startswith("failed, as it may")
            execution_id = await rerun_execution(engine.store, planned)
            await trigger_workflow(engine.store, execution_id)
            await engine.end(execution_id)


async def test_a_node_after_completed_ones_fails_once_all_have_ended(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(
                choosing("bad", fails=True),
                choosing("good"),
                choosing("J", "bad", "good", after="completed"),
            )
        )
        assert (await engine.states(execution_id))["J"] == FAILED
        assert "a dependency failed" in (await engine.results(execution_id))["J"]["error"]


async def test_a_condition_reads_outputs_input_states_and_the_execution(settings):
    async with Engine(settings) as engine:
        condition = (
            "A.score > 5 and input.env == 'prod' and state.A == 'COMPLETED' "
            "and execution.name == 'checked'"
        )
        nodes = [node("A", score=7), choosing("B", "A", when=condition)]
        _, states = await outcome(engine, *nodes, name="checked", input={"env": "prod"})
        assert states["B"] == COMPLETED
        _, states = await outcome(engine, *nodes, name="checked", input={"env": "test"})
        assert states["B"] == SKIPPED


async def test_a_condition_that_cannot_be_decided_fails_its_node_at_once_and_says_why(settings):
    async with Engine(settings) as engine:
        nodes = [
            node("A", score="7"),
            choosing("B", "A", when="A.score > 5", retry={"max_attempts": 3}),
        ]
        execution_id = await engine.run(workflow(*nodes))
        error = (await engine.results(execution_id))["B"]["error"]
        assert "when: A.score (a string) and 5 (a number) are not ordered" in error
        assert calls(execution_id) == ["A"]


async def test_why_a_node_was_skipped_is_said_where_nodes_are_listed(settings):
    async with Engine(settings) as engine:
        nodes = [choosing("A"), choosing("B", "A", when="1 == 2"), choosing("C", "B")]
        execution_id = await engine.run(workflow(*nodes))
        states = await engine.store.nodes.states(execution_id, ["B", "C"])
        rows = await engine.store.nodes.rows(execution_id, states)
        assert [row.reason for row in rows] == [
            "its condition is false: 1 == 2",
            "all of its dependencies were skipped",
        ]


async def test_a_wide_cascade_of_skips_and_of_failures_reaches_everybody(settings):
    wide = [f"w{number}" for number in range(2_500)]
    async with Engine(settings) as engine:
        status, states = await outcome(
            engine,
            choosing("A", when="false"),
            *(choosing(one, "A") for one in wide),
            choosing("J", *wide),
        )
        assert (status, set(states.values())) == (COMPLETED, {SKIPPED})
        status, states = await outcome(
            engine,
            choosing("A", fails=True),
            choosing("plain", "A"),
            *(choosing(one, "plain", after="failed") for one in wide),
            *(choosing(f"{one}b", "A", after="ended") for one in wide),
        )
        assert status == FAILED
        assert set(states.values()) - {FAILED} == {COMPLETED}
        assert list(states.values()).count(FAILED) == 2


async def test_a_cancelled_execution_opens_nothing_that_looks_at_failures(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(
            workflow(node("A", [], "held"), choosing("B", "A", after="failed"))
        )
        await cancel_execution(engine.store, execution_id)
        await trigger_workflow(engine.store, execution_id)
        assert await engine.states(execution_id) == {"A": "CANCELLED", "B": "CANCELLED"}


async def test_the_workflow_the_manual_shows_chooses_as_it_is_told(settings):
    (shown,) = blocks("Choosing, and failing well", "json")
    definition = json.loads(shown)
    async with Engine(settings, registry=built_in_registry()) as engine:
        for amount, review in ((120, COMPLETED), (80, SKIPPED)):
            definition["input"]["amount"] = amount
            execution_id = await engine.run(WorkflowDefinition.model_validate(definition))
            assert await engine.states(execution_id) == {
                "order": COMPLETED,
                "review": review,
                "advert": FAILED,
                "ship": COMPLETED,
                "alarm": SKIPPED,
            }
            assert str(await engine.end(execution_id)) == COMPLETED


async def test_the_sample_that_chooses_ends_without_a_network(settings):
    (text,) = load_samples(("choose",)).values()
    async with Engine(settings, registry=built_in_registry()) as engine:
        execution_id = await engine.run(WorkflowDefinition.model_validate_json(text))
        assert await engine.states(execution_id) == {
            "order": COMPLETED,
            "review": COMPLETED,
            "discount": SKIPPED,
            "advert": FAILED,
            "ship": COMPLETED,
            "alarm": SKIPPED,
        }
        assert str(await engine.end(execution_id)) == COMPLETED


async def test_a_template_of_a_workflow_that_chooses_reads_the_input_it_was_written_with(settings):
    async with Engine(settings) as engine:
        nodes = [choosing("A", when="input.x == 1"), node("B", x="{{ input.x }}")]
        execution_id = await engine.run(workflow(*nodes, input={"x": 1}))
        assert (await engine.results(execution_id))["B"] == {"x": 1}
        assert (await engine.states(execution_id))["A"] == COMPLETED


async def test_a_condition_reads_an_output_that_is_large(settings):
    long = "x" * (2 * SMALL_BYTES_MAX)
    async with Engine(settings) as engine:
        nodes = [node("A", text=long), choosing("B", "A", when=f"A.text | length == {len(long)}")]
        assert (await outcome(engine, *nodes))[1]["B"] == COMPLETED


async def test_an_allowed_failure_tries_again_first_and_keeps_its_report(settings):
    async with Engine(settings) as engine:
        retry = {"max_attempts": 2, "delay_s": 0}
        nodes = [choosing("A", fails=True, allow_failure=True, retry=retry), choosing("B", "A")]
        async with engine.ticking():
            execution_id = await engine.run(workflow(*nodes))
        assert calls(execution_id) == ["A", "A", "B"]
        report = (await engine.store.nodes.reports(execution_id, ["A"]))["A"]
        assert "RuntimeError: no luck" in (report.traceback or "")
        assert await engine.store.executions.failure(execution_id) is None


async def test_a_definition_that_chooses_nothing_leaves_nothing_new_in_redis(settings, redis):
    async with Engine(settings) as engine:
        nodes = [node("A"), node("B", ["A"]), node("C", ["A"]), node("D", ["B", "C"])]
        execution_id = await engine.run(workflow(*nodes))
        run = redis.hgetall(keys.run(execution_id))
        assert [one for one in run if one.startswith(("arrived:", "skipped:"))] == ["arrived:D"]
        definition = orjson.loads(redis.get(keys.definition(execution_id)))
        assert {name for one in definition["dag"]["nodes"] for name in one} == {
            *("id", "handler", "dependencies", "config")
        }
