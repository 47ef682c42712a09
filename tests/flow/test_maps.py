"""Nodes that run once for each item of a list."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest

from flowd.cli.samples import load_samples
from flowd.config import MapSettings
from flowd.errors import UnknownNode
from flowd.handlers.registry import built_in_registry
from flowd.orchestrator.executor import (
    cancel_execution,
    pause_execution,
    resume_execution,
    trigger_workflow,
)
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import recover_worker
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.workflow.definition import WorkflowDefinition
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until, workflow
from tests.flow.test_faults import consumers
from tests.manual import blocks

COMPLETED, SKIPPED, FAILED, CANCELLED = "COMPLETED", "SKIPPED", "FAILED", "CANCELLED"


@pytest.fixture(autouse=True)
def _nobody_is_fated():
    yield
    handlers.FATED.clear()


def mapped(handler: str = "echo", over: str = "{{ input.rows }}", **fields: Any) -> Any:
    """The node `fan`; what is no field of `map` is one of its config."""
    said = {
        name: fields.pop(name)
        for name in ("concurrency", "max_failed", "fail_fast", "results")
        if name in fields
    }
    written = {one: fields.pop(one) for one in ("retry", "when", "allow_failure") if one in fields}
    dependencies = fields.pop("dependencies", ())
    return node("fan", dependencies, handler, **fields) | {"map": {"over": over, **said}} | written


def over(rows: Any, *nodes: Any, **fields: Any) -> Any:
    return workflow(*nodes, input={"rows": rows}, **fields)


async def test_each_item_runs_once_and_the_results_keep_their_order(settings):
    async with Engine(settings) as engine:
        rows = [{"x": number} for number in range(120)]
        execution_id = await engine.run(
            over(rows, mapped(x="{{ item.x }}", at="{{ index }}", concurrency=7))
        )
        assert str(await engine.end(execution_id)) == COMPLETED
        output = (await engine.results(execution_id))["fan"]
        assert output == {
            "results": [{"x": number, "at": number} for number in range(120)],
            "count": 120,
            "failed": [],
        }
        assert sorted(calls(execution_id)) == sorted(f"fan.{number}" for number in range(120))


async def test_what_follows_a_map_reads_its_results(settings):
    async with Engine(settings) as engine:
        last = node("last", ["fan"], all="{{ fan.results }}", first="{{ fan.results[0].x }}")
        execution_id = await engine.run(over(["a", "b"], mapped(x="{{ item }}"), last))
        results = await engine.results(execution_id)
        assert results["last"] == {"all": [{"x": "a"}, {"x": "b"}], "first": "a"}


async def test_the_list_of_a_node_above_is_mapped(settings):
    async with Engine(settings) as engine:
        first = node("list", rows=[1, None, "x"])
        execution_id = await engine.run(
            workflow(first, mapped(over="{{ list.rows }}", dependencies=["list"], v="{{ item }}"))
        )
        output = (await engine.results(execution_id))["fan"]
        assert output["results"] == [{"v": 1}, {"v": None}, {"v": "x"}]


async def test_two_empty_maps_in_a_row_are_completed(settings):
    async with Engine(settings) as engine:
        second = {**mapped(over="{{ fan.results }}", dependencies=["fan"]), "id": "second"}
        execution_id = await engine.run(over([], mapped(), second))
        empty = {"results": [], "count": 0, "failed": []}
        assert await engine.results(execution_id) == {"fan": empty, "second": empty}


@pytest.mark.parametrize("rows", ["text", {"a": 1}, None, 3])
async def test_what_is_no_list_fails_without_another_attempt(settings, rows):
    async with Engine(settings) as engine:
        execution_id = await engine.run(over(rows, mapped(retry={"max_attempts": 3})))
        assert str(await engine.end(execution_id)) == FAILED
        output = (await engine.results(execution_id))["fan"]
        assert output["error"].endswith("it must be an array")


async def test_an_item_that_fails_is_null_among_the_results_and_named(settings):
    async with Engine(settings) as engine:
        handlers.FATED |= {"fan.1", "fan.3"}
        execution_id = await engine.run(over([0, 1, 2, 3], mapped("fated", max_failed=2)))
        output = (await engine.results(execution_id))["fan"]
        assert (output["count"], output["failed"]) == (4, [1, 3])
        assert [one is None for one in output["results"]] == [False, True, False, True]


async def test_more_failures_than_may_be_fail_the_map_after_the_rest(settings):
    async with Engine(settings) as engine:
        handlers.FATED |= {"fan.0", "fan.1"}
        below = node("below", ["fan"])
        execution_id = await engine.run(
            over(list(range(6)), mapped("fated", max_failed=1, concurrency=1), below)
        )
        assert await engine.states(execution_id) == {"fan": FAILED, "below": FAILED}
        assert len(calls(execution_id)) == 6
        error = (await engine.results(execution_id))["fan"]["error"]
        assert error.startswith("2 of 6 items failed, and at most 1 may; fan.0: ")


async def test_failing_fast_starts_no_further_item(settings):
    async with Engine(settings) as engine:
        handlers.FATED |= {"fan.2"}
        execution_id = await engine.run(
            over(list(range(100)), mapped("fated", fail_fast=True, concurrency=1))
        )
        assert str(await engine.end(execution_id)) == FAILED
        assert calls(execution_id) == ["fan.0", "fan.1", "fan.2"]


async def test_without_results_they_stay_with_the_items(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(over([1, 2], mapped(results=False)))
        assert (await engine.results(execution_id))["fan"] == {"count": 2, "failed": []}


async def test_no_more_items_run_at_once_than_may(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(over(list(range(9)), mapped("held", concurrency=3)))
        await until(lambda: len(calls(execution_id)) == 3, "three items")
        handlers.GATES["fan.1"].set()
        await until(lambda: len(calls(execution_id)) == 4, "one more")
        assert (await engine.states(execution_id))["fan"] == "WAITING"
        for number in range(9):
            await until(lambda one=number: f"fan.{one}" in handlers.GATES, "the next")
            handlers.GATES[f"fan.{number}"].set()
        assert str(await engine.end(execution_id)) == COMPLETED


async def keys_of(engine: Engine, execution_id: str) -> list[str]:
    return sorted(await engine.redis("KEYS", f"workflow:{execution_id}*"))


async def is_empty(engine: Engine) -> bool:
    return await engine.redis("XLEN", "workflow:tasks") == 0


async def fields_of(engine: Engine, key: str) -> dict[str, str]:
    flat = await engine.redis("HGETALL", key)
    return dict(zip(flat[::2], flat[1::2], strict=True))


async def test_a_retry_of_an_item_keeps_its_item_and_has_one_result(settings):
    async with Engine(settings) as engine, engine.ticking():
        rows = [f"row {number}" for number in range(4)]
        retry = {"max_attempts": 3, "delay_s": 0.01}
        execution_id = await engine.run(
            over(rows, mapped("fail_first", times=1, row="{{ item }}", retry=retry))
        )
        assert str(await engine.end(execution_id)) == COMPLETED
        output = (await engine.results(execution_id))["fan"]
        assert output == {"results": [{"calls": 2}] * 4, "count": 4, "failed": []}
        assert sorted(calls(execution_id)) == sorted(f"fan.{one}" for one in range(4) for _ in "ab")


async def test_with_one_place_an_item_that_waits_for_its_retry_lets_the_others_run(settings):
    async with Engine(settings) as engine:
        retry = {"max_attempts": 2, "delay_s": 3600}
        execution_id = await engine.start(
            over(list(range(5)), mapped("fail_first", times=1, concurrency=1, retry=retry))
        )

        async def paused() -> bool:
            return await engine.redis("ZCARD", "flowd:retries") == 5

        await until(paused, "five items in a pause")
        assert sorted(calls(execution_id)) == [f"fan.{one}" for one in range(5)]


async def test_cancelled_amid_its_items_nothing_starts_afterwards(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(over(list(range(50)), mapped("held", concurrency=4)))
        await until(lambda: len(calls(execution_id)) == 4, "four items")
        await cancel_execution(engine.store, execution_id)
        await until(lambda: is_empty(engine), "the end of the calls")
        for gate in handlers.GATES.values():
            gate.set()
        assert len(calls(execution_id)) == 4
        assert await engine.states(execution_id) == {"fan": CANCELLED}
        states = await engine.store.nodes.maps.states(execution_id, "fan", range(50))
        assert [str(one) for one in states[:4]] == [CANCELLED] * 4
        assert set(states[4:]) == {None}
        assert await engine.store.nodes.maps.counts(execution_id, "fan") == {"CANCELLED": 50}


async def test_deleted_after_a_cancel_it_leaves_no_key(settings):
    async with Engine(settings) as engine:
        retry = {"max_attempts": 2, "delay_s": 3600}
        execution_id = await engine.start(
            over(list(range(20)), mapped("fail_first", times=1, concurrency=3, retry=retry))
        )

        async def paused() -> bool:
            return await engine.redis("ZCARD", "flowd:retries") == 20

        await until(paused, "the pauses")
        await cancel_execution(engine.store, execution_id)
        await engine.store.finished.delete_execution(execution_id)
        assert await keys_of(engine, execution_id) == []
        assert await engine.redis("ZCARD", "flowd:retries") == 0


async def test_paused_it_starts_no_further_item_and_goes_on_when_resumed(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(over(list(range(9)), mapped("held", concurrency=3)))
        await until(lambda: len(calls(execution_id)) == 3, "three items")
        await pause_execution(engine.store, execution_id)
        for number in range(3):
            handlers.GATES[f"fan.{number}"].set()

        async def three_ended() -> bool:
            standing = await engine.store.nodes.maps.standing(execution_id, "fan")
            return standing is not None and standing.ended == 3

        await until(three_ended, "the end of what ran")
        parked = await fields_of(engine, f"workflow:{execution_id}:parked")
        assert sorted(parked) == ["fan.3", "fan.4", "fan.5"]
        assert len(calls(execution_id)) == 3
        await resume_execution(engine.store, execution_id)
        for number in range(3, 9):
            await until(lambda one=number: f"fan.{one}" in handlers.GATES, "the next")
            handlers.GATES[f"fan.{number}"].set()
        assert str(await engine.end(execution_id)) == COMPLETED


async def test_paused_before_its_last_item_ends_it_is_completed_after_the_pause(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(over([0], mapped("held")))
        await until(lambda: "fan.0" in handlers.GATES, "the item")
        await pause_execution(engine.store, execution_id)
        handlers.GATES["fan.0"].set()

        async def woken() -> bool:
            return "fan" in await fields_of(engine, f"workflow:{execution_id}:parked")

        await until(woken, "the node that is kept")
        await resume_execution(engine.store, execution_id)
        assert str(await engine.end(execution_id)) == COMPLETED


async def test_a_rerun_of_what_failed_runs_the_failed_items_only(settings):
    async with Engine(settings) as engine:
        handlers.FATED |= {"fan.1", "fan.4"}
        first = await engine.run(over(list(range(6)), mapped("fated", n="{{ item }}")))
        handlers.FATED.clear()
        wanted = await plan_rerun(engine.store, first, "failed")
        assert wanted.runs == {"fan": "was FAILED; 2 of its 6 items run"}
        again = await rerun_execution(engine.store, wanted)
        await trigger_workflow(engine.store, again)
        assert str(await engine.end(again)) == COMPLETED
        assert sorted(calls(again)) == ["fan.1", "fan.4"]
        output = (await engine.results(again))["fan"]
        assert (output["count"], output["failed"]) == (6, [])
        assert None not in output["results"]


async def test_a_rerun_from_an_item_runs_what_failed_of_its_map_if_there_is_such_an_item(settings):
    async with Engine(settings) as engine:
        handlers.FATED |= {"fan.1"}
        fan = mapped("fated", n="{{ item }}", max_failed=1)
        first = await engine.run(over(list(range(3)), fan))
        handlers.FATED.clear()
        with pytest.raises(UnknownNode):
            await plan_rerun(engine.store, first, "fan.3")
        again = await rerun_execution(engine.store, await plan_rerun(engine.store, first, "fan.1"))
        await trigger_workflow(engine.store, again)
        assert str(await engine.end(again)) == COMPLETED
        assert calls(again) == ["fan.1"]
        assert (await engine.results(again))["fan"]["failed"] == []


async def test_a_rerun_from_a_map_runs_all_of_its_items_with_the_list_it_had(settings):
    async with Engine(settings) as engine:
        first = await engine.run(over([3, 4], mapped(n="{{ item }}")))
        again = await rerun_execution(engine.store, await plan_rerun(engine.store, first, "fan"))
        await trigger_workflow(engine.store, again)
        assert str(await engine.end(again)) == COMPLETED
        assert sorted(calls(again)) == ["fan.0", "fan.1"]
        assert (await engine.results(again))["fan"]["results"] == [{"n": 3}, {"n": 4}]


async def test_the_list_is_read_anew_where_what_it_comes_from_runs_again(settings):
    async with Engine(settings) as engine:
        first = node("list", [], "rows_so_far")
        workflow_ = workflow(
            first, mapped(over="{{ list.rows }}", dependencies=["list"], v="{{ item }}")
        )
        one = await engine.run(workflow_)
        again = await rerun_execution(engine.store, await plan_rerun(engine.store, one, "list"))
        await trigger_workflow(engine.store, again)
        assert str(await engine.end(again)) == COMPLETED
        assert (await engine.results(one))["fan"]["count"] == 1
        assert (await engine.results(again))["fan"]["count"] == 2


async def test_a_map_that_is_reused_keeps_its_items(settings):
    async with Engine(settings) as engine:
        last = node("last", ["fan"], "fated")
        handlers.FATED |= {"last"}
        first = await engine.run(over([3, 4], mapped(n="{{ item }}", results=False), last))
        handlers.FATED.clear()
        again = await rerun_execution(engine.store, await plan_rerun(engine.store, first, "failed"))
        await trigger_workflow(engine.store, again)
        assert str(await engine.end(again)) == COMPLETED
        assert calls(again) == ["last"]
        assert await engine.store.nodes.maps.outputs(again, "fan", 2, 1) == [b'{"n":3}', b'{"n":4}']


async def test_results_that_are_too_large_fail_the_map_before_more_is_paid(settings, monkeypatch):
    monkeypatch.setattr("flowd.handlers.map_node.OUTPUT_BYTES_MAX", 2_000)
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            over(list(range(100)), mapped(text="x" * 300, concurrency=1))
        )
        assert str(await engine.end(execution_id)) == FAILED
        assert len(calls(execution_id)) == 6
        error = (await engine.results(execution_id))["fan"]["error"]
        assert "after 6 of 100" in error and '"results": false' in error


async def test_a_skipped_map_is_skipped_to_what_follows_it(settings):
    async with Engine(settings) as engine:
        below = node("below", ["fan"])
        execution_id = await engine.run(over([1], mapped(when="false"), below))
        assert await engine.states(execution_id) == {"fan": SKIPPED, "below": SKIPPED}


async def test_a_map_that_may_fail_is_completed_to_what_follows_it(settings):
    async with Engine(settings) as engine:
        handlers.FATED |= {"fan.0"}
        below = node("below", ["fan"], text="{{ fan.error | default('') }}")
        execution_id = await engine.run(over([1], mapped("fated", allow_failure=True), below))
        assert str(await engine.end(execution_id)) == COMPLETED
        assert "1 of 1 items failed" in (await engine.results(execution_id))["below"]["text"]


async def test_a_node_called_item_is_read_by_that_name(settings):
    async with Engine(settings) as engine:
        named = node("item", v="mine")
        fan = mapped(over="{{ input.rows }}", dependencies=["item"], v="{{ item.v }}")
        execution_id = await engine.run(over([1], named, fan))
        assert (await engine.results(execution_id))["fan"]["results"] == [{"v": "mine"}]


async def test_an_item_that_cannot_be_rendered_fails_that_item(settings):
    async with Engine(settings) as engine:
        fan = mapped(v="{{ item.x }}", max_failed=1)
        execution_id = await engine.run(over([{"x": 1}, {"y": 2}], fan))
        output = (await engine.results(execution_id))["fan"]
        assert output == {"results": [{"v": 1}, None], "count": 2, "failed": [1]}


async def test_more_items_than_a_list_may_have_fail_the_node(settings):
    settings = replace(settings, map=MapSettings(items_max=3))
    async with Engine(settings) as engine:
        execution_id = await engine.run(over(list(range(4)), mapped()))
        error = (await engine.results(execution_id))["fan"]["error"]
        assert error.startswith("map.over has 4 items, and at most 3 may be")
        assert calls(execution_id) == []


async def test_after_a_map_nothing_of_it_waits_or_is_open(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(over(list(range(30)), mapped(concurrency=4)))
        assert await engine.redis("XLEN", "workflow:tasks") == 0
        named = f"workflow:{execution_id}:map:fan"
        assert await keys_of(engine, f"{execution_id}:map") == [named, f"{named}:items"]
        await engine.store.finished.delete_execution(execution_id)
        assert await keys_of(engine, execution_id) == []


async def test_the_workflow_the_manual_shows_maps_its_lists(settings):
    (shown,) = blocks("Mapping a list", "json")
    (sample,) = load_samples(["map"]).values()
    assert json.loads(sample) == json.loads(shown)
    async with Engine(settings, registry=built_in_registry()) as engine:
        execution_id = await engine.run(WorkflowDefinition.model_validate_json(shown))
        assert str(await engine.end(execution_id)) == COMPLETED
        results = await engine.results(execution_id)
        answers = [one["answer"] for one in results["write"]["results"]]
        assert [one.rpartition(" ")[2] for one in answers] == ["Ada", "Grace", "Edsger"]
        assert (results["send"]["count"], results["send"]["failed"]) == (3, [])
        assert results["report"]["data"].endswith("http://consumer?sent=3&failed=%5B%5D")


async def test_an_item_is_called_again_until_its_own_output_says_so(settings):
    async with Engine(settings) as engine, engine.ticking():
        fan = mapped("count_calls", at="{{ index }}", concurrency=1)
        fan["repeat"] = {"until": "output.calls > item", "delay_s": 0.01}
        execution_id = await engine.run(over([0, 2, 1], fan))
        output = (await engine.results(execution_id))["fan"]
        assert [one["calls"] for one in output["results"]] == [1, 3, 2]


async def test_items_in_a_repeat_pause_give_their_place_to_the_others(settings):
    async with Engine(settings) as engine:
        fan = mapped("count_calls", concurrency=1)
        fan["repeat"] = {"until": "output.calls > 9", "delay_s": 3600}
        execution_id = await engine.start(over(list(range(4)), fan))

        async def paused() -> bool:
            return await engine.redis("ZCARD", "flowd:retries") == 4

        await until(paused, "four items in a pause")
        assert calls(execution_id) == [f"fan.{one}" for one in range(4)]


async def test_behind_thousands_of_items_the_join_runs_once_and_not_before_the_last(settings):
    async with Engine(settings) as engine:
        fan, last = mapped(n="{{ item }}", concurrency=300), node("last", ["fan"])
        execution_id = await engine.run(over(list(range(2_000)), fan, last))
        ran = calls(execution_id)
        assert (len(ran), len(set(ran)), ran[-1]) == (2_001, 2_001, "last")
        results = (await engine.results(execution_id))["fan"]["results"]
        assert results == [{"n": number} for number in range(2_000)]
        # An entry for each item, and two of the map's own: no more for many than for few.
        described = await engine.redis("XINFO", "STREAM", "workflow:tasks")
        added = dict(zip(described[::2], described[1::2], strict=True))["entries-added"]
        assert added == 2_000 + 2 + 1


async def test_two_empty_maps_in_a_row_are_completed_when_they_run_again(settings):
    async with Engine(settings) as engine:
        second = {**mapped(over="{{ fan.results }}", dependencies=["fan"]), "id": "second"}
        first = await engine.run(over([], mapped(), second))
        for start in ("fan", "second"):
            again = await rerun_execution(
                engine.store, await plan_rerun(engine.store, first, start)
            )
            await trigger_workflow(engine.store, again)
            assert str(await engine.end(again)) == COMPLETED
            assert (await engine.results(again))["second"]["results"] == []


async def test_each_item_has_a_key_of_its_own_for_services(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(over([1, 2], mapped("key")))
        results = (await engine.results(execution_id))["fan"]["results"]
        assert [one["key"] for one in results] == [
            f"{execution_id}:fan.0",
            f"{execution_id}:fan.1",
        ]


async def test_a_worker_whose_items_were_given_away_commits_none_of_them(settings):
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(over(list(range(6)), mapped("held", concurrency=3)))
        await until(lambda: len(calls(execution_id)) == 3, "three items")
        (late,) = await consumers(engine)
        gates = dict(handlers.GATES)
        handlers.GATES.clear()
        plans = Plans(engine.store)
        await recover_worker(engine.store, plans, late, "the test says so", is_blamed=True)
        await engine.add_worker()
        await until(lambda: len(handlers.GATES) == 3, "the same three again")
        for gate in (*gates.values(), *handlers.GATES.values()):
            gate.set()
        for number in range(6):
            await until(lambda one=number: f"fan.{one}" in handlers.GATES, "the next")
            handlers.GATES[f"fan.{number}"].set()
        assert str(await engine.end(execution_id)) == COMPLETED
        standing = await engine.store.nodes.maps.standing(execution_id, "fan")
        assert standing is not None
        assert (standing.n, standing.ended, standing.failed) == (6, 6, 0)
