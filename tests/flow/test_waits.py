"""Nodes that wait: they hold no worker and no slot, and wake once, whatever happens meanwhile."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from flowd.cli.samples import load_samples
from flowd.config import WorkersSettings
from flowd.diagnosis.observer import Observer
from flowd.handlers.registry import Registry, built_in_registry
from flowd.orchestrator.executor import (
    cancel_execution,
    pause_execution,
    resume_execution,
    trigger_workflow,
)
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.store.redis import keys
from flowd.store.saved import About
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.graph import plan_digest
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until, workflow
from tests.flow.test_children import WITH_CHILDREN
from tests.flow.test_reads import serving
from tests.manual import blocks

HOUR_S = 3600


def delayed(node_id="A", dependencies=(), **config):
    return node(node_id, dependencies, "delay", **config)


def engine_of(settings, **options):
    return Engine(settings, registry=built_in_registry(), **options)


async def waiting(engine, execution_id, node_id="A"):
    async def is_waiting():
        return (await engine.states(execution_id))[node_id] == "WAITING"

    await until(is_waiting, f"{node_id} to wait")


async def make_due(engine, execution_id, node_id="A"):
    """As if its time had come."""
    await engine.redis("ZADD", keys.RETRIES, "XX", 1, f"{execution_id} {node_id}")


async def test_a_delay_is_over_after_its_time_and_its_dependents_go_on(settings):
    async with engine_of(settings) as engine, engine.ticking():
        execution_id = await engine.run(workflow(delayed(seconds=0.05), node("B", ["A"], "noop")))

        assert await engine.results(execution_id) == {
            "A": {"status": "ok", "seconds": 0.05},
            "B": {"status": "ok"},
        }


async def test_a_delay_until_a_moment_is_over_then(settings):
    moment = (datetime.now(UTC) + timedelta(seconds=0.3)).isoformat()
    async with engine_of(settings) as engine, engine.ticking():
        execution_id = await engine.run(workflow(delayed(until=moment)))

        assert datetime.now(UTC) >= datetime.fromisoformat(moment)
        assert await engine.results(execution_id) == {"A": {"status": "ok", "until": moment}}


async def test_a_hundred_delays_hold_no_slot(settings):
    one_slot = replace(settings, workers=WorkersSettings(concurrency=1))
    async with engine_of(one_slot, workers=1) as engine:
        nodes = [delayed(f"D{at}", seconds=HOUR_S) for at in range(100)]
        waits = await engine.start(workflow(*nodes))
        await waiting(engine, waits, "D99")

        execution_id = await engine.run(workflow(node("A", handler="noop")))

        assert str(await engine.end(execution_id)) == "COMPLETED"
        assert set((await engine.states(waits)).values()) == {"WAITING"}
        assert await engine.redis("XLEN", "workflow:tasks") == 0


async def test_a_delay_outlives_every_worker_and_does_not_begin_anew(settings):
    async with engine_of(settings, workers=1) as engine:
        execution_id = await engine.start(workflow(delayed(seconds=HOUR_S)))
        await waiting(engine, execution_id)
        due = await engine.redis("ZSCORE", keys.RETRIES, f"{execution_id} A")
        await engine.stop_worker(engine.workers[0])
        await engine.add_worker()
        await engine.tick()

        assert await engine.redis("ZSCORE", keys.RETRIES, f"{execution_id} A") == due
        await make_due(engine, execution_id)
        await engine.tick()
        assert str(await engine.end(execution_id)) == "COMPLETED"


async def test_a_delay_that_ends_in_a_pause_goes_on_at_the_resumption(settings):
    async with engine_of(settings) as engine:
        execution_id = await engine.start(workflow(delayed(seconds=HOUR_S)))
        await waiting(engine, execution_id)
        await pause_execution(engine.store, execution_id)
        await make_due(engine, execution_id)
        await engine.tick()
        assert await engine.states(execution_id) == {"A": "PENDING"}

        await resume_execution(engine.store, execution_id)

        assert str(await engine.end(execution_id)) == "COMPLETED"


async def test_a_cancelled_execution_has_nobody_that_waits(settings):
    async with engine_of(settings) as engine:
        execution_id = await engine.start(workflow(delayed(seconds=HOUR_S), delayed("B", ["A"])))
        await waiting(engine, execution_id)

        await cancel_execution(engine.store, execution_id)

        assert await engine.states(execution_id) == {"A": "CANCELLED", "B": "CANCELLED"}
        assert await engine.redis("ZCARD", keys.RETRIES) == 0
        await engine.tick()
        assert await engine.states(execution_id) == {"A": "CANCELLED", "B": "CANCELLED"}


async def test_a_rerun_reuses_a_delay_that_was_over(settings):
    async with engine_of(settings) as engine, engine.ticking():
        failing = {**node("B", ["A"], "unreliable_handler", failure_rate=1.0)}
        execution_id = await engine.run(workflow(delayed(seconds=0.01), failing))
        plan = await plan_rerun(engine.store, execution_id, "failed")

        rerun = await rerun_execution(engine.store, plan)

        assert (await engine.states(rerun))["A"] == "COMPLETED"


@pytest.mark.parametrize("kind", ["poll", "poll_in_thread", "poll_async"])
async def test_an_own_handler_that_waits_is_called_again_with_another_key(settings, kind):
    async with Engine(settings) as engine, engine.ticking():
        execution_id = await engine.run(workflow(node("A", handler=kind, waits=2)))

        assert await engine.results(execution_id) == {"A": {"call": 3}}
        assert [f"{execution_id}:A{n}" for n in ("", ":2", ":3")] == handlers.KEYS


async def test_attempts_of_one_call_share_its_key_and_failures_begin_anew(settings):
    retry = {"max_attempts": 2, "delay_s": 0, "jitter": 0}
    async with Engine(settings) as engine, engine.ticking():
        polling = {**node("A", handler="poll_and_fail", waits=2), "retry": retry}
        execution_id = await engine.run(workflow(polling))

        assert await engine.results(execution_id) == {"A": {"call": 3}}
        ends = ("", "", ":2", ":2", ":3", ":3")
        assert [f"{execution_id}:A{n}" for n in ends] == handlers.KEYS


async def test_the_key_of_a_node_that_never_waited_is_what_it_was(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(workflow(node("A", handler="poll", waits=0)))

        assert [f"{execution_id}:A"] == handlers.KEYS


async def test_a_workflow_that_waits_for_nothing_leaves_no_trace_of_waiting(settings):
    async with Engine(settings) as engine, engine.ticking():
        flaky = node("A", handler="fail_first", times=1)
        flaky["retry"] = {"max_attempts": 2, "delay_s": 0}
        execution_id = await engine.run(workflow(flaky, node("B", ["A"])))

        names = await engine.redis("KEYS", "*")
        assert not [one for one in names if "wait" in one or "decision" in one or "alarm" in one]
        run = await engine.redis("HKEYS", keys.run(execution_id))
        assert not [one for one in run if "wait" in one]


async def test_a_node_that_is_woken_while_its_worker_dies_is_called_once_more(settings):
    async with Engine(settings, workers=1) as engine, engine.ticking():
        execution_id = await engine.start(
            workflow(node("A", handler="poll", waits=1, after_s=HOUR_S))
        )
        await waiting(engine, execution_id)
        await engine.stop_worker(engine.workers[0])
        await make_due(engine, execution_id)

        async def is_queued():
            return (await engine.states(execution_id))["A"] == "QUEUED"

        await until(is_queued, "the wake")
        await engine.add_worker()
        assert str(await engine.end(execution_id)) == "COMPLETED"
        assert calls(execution_id) == ["A", "A"]


def repeated(until="output.done", times=2, **written):
    pausing = {"until": until, "delay_s": 0, **written}
    return {**node("A", handler="done_after", times=times), "repeat": pausing}


async def test_a_node_is_called_until_its_output_says_that_it_is_done(settings):
    async with Engine(settings) as engine, engine.ticking():
        execution_id = await engine.run(workflow(repeated(), node("B", ["A"], x="{{ A.calls }}")))

        assert await engine.results(execution_id) == {
            "A": {"done": True, "calls": 3},
            "B": {"x": 3},
        }
        assert [f"{execution_id}:A{n}" for n in ("", ":2", ":3")] == handlers.KEYS


async def test_one_that_is_done_at_once_never_waits(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(workflow(repeated(times=0)))

        assert await engine.results(execution_id) == {"A": {"done": True, "calls": 1}}
        assert await engine.redis("EXISTS", keys.decisions(execution_id)) == 0


async def test_between_two_calls_it_waits_and_says_how_often_it_was_called(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(workflow(repeated(delay_s=HOUR_S, max_delay_s=HOUR_S)))
        await waiting(engine, execution_id)

        (row,) = await engine.store.nodes.rows(
            execution_id, await engine.store.nodes.states(execution_id, ["A"])
        )
        assert row.wait.text == "called 1 of 100 times, until output.done"
        assert HOUR_S - 60 < (row.wait.until_ms - row.wait.since_ms) / 1000 < HOUR_S + 60
        # What is between two calls is no output yet.
        assert await engine.redis("EXISTS", keys.output(execution_id, "A")) == 0


async def test_one_that_is_never_done_fails_after_its_last_call_and_without_a_retry(settings):
    retry = {"max_attempts": 5, "delay_s": 0}
    async with Engine(settings) as engine, engine.ticking():
        node_a = {**repeated(times=99, max_times=3), "retry": retry}
        execution_id = await engine.run(workflow(node_a, node("B", ["A"])))

        assert await engine.states(execution_id) == {"A": "FAILED", "B": "FAILED"}
        assert calls(execution_id) == ["A", "A", "A"]
        error = (await engine.results(execution_id))["A"]["error"]
        assert error == (
            "attempt 1 of 5: repeat: output.done was not true after 3 calls; "
            'the last output: {"done":false,"calls":3}'
            "; not tried again: another attempt would not change it"
        )


async def test_a_condition_that_cannot_be_decided_fails_the_node_at_once(settings):
    async with Engine(settings) as engine, engine.ticking():
        execution_id = await engine.run(workflow(repeated("output.left == 0")))

        assert calls(execution_id) == ["A"]
        error = (await engine.results(execution_id))["A"]["error"]
        assert error.startswith("repeat: 'output' has no key 'left'")


async def test_a_repeat_reads_what_is_upstream_and_the_input(settings):
    until = "output.calls == input.n or first.stop"
    async with Engine(settings) as engine, engine.ticking():
        polling = {**repeated(until), "dependencies": ["first"]}
        execution_id = await engine.run(workflow(node("first", stop=False), polling), b'{"n": 2}')

        assert (await engine.results(execution_id))["A"]["calls"] == 2


async def test_a_failed_call_of_a_repeat_has_all_its_attempts_again(settings):
    retry = {"max_attempts": 2, "delay_s": 0, "jitter": 0}
    async with Engine(settings) as engine, engine.ticking():
        polling = {**node("A", handler="poll_and_fail", waits=0), "retry": retry}
        polling["repeat"] = {"until": "output.call == 3", "delay_s": 0}
        execution_id = await engine.run(workflow(polling))

        assert await engine.results(execution_id) == {"A": {"call": 3}}
        assert len(handlers.KEYS) == 6


async def test_an_allowed_failure_covers_a_repeat_that_is_never_done(settings):
    async with Engine(settings) as engine, engine.ticking():
        polling = {**repeated(times=99, max_times=1), "allow_failure": True}
        execution_id = await engine.run(workflow(polling, node("B", ["A"])))

        assert str(await engine.end(execution_id)) == "COMPLETED"
        assert await engine.states(execution_id) == {"A": "FAILED", "B": "COMPLETED"}


async def test_a_rerun_repeats_from_the_first_call(settings):
    async with Engine(settings) as engine, engine.ticking():
        execution_id = await engine.run(workflow(repeated(times=99, max_times=2)))
        rerun = await rerun_execution(
            engine.store, await plan_rerun(engine.store, execution_id, "failed")
        )
        handlers.KEYS.clear()
        await trigger_workflow(engine.store, rerun)
        await engine.end(rerun)

        assert [f"{rerun}:A", f"{rerun}:A:2"] == handlers.KEYS


async def test_the_sample_that_waits_ends_without_a_network(settings):
    (text,) = load_samples(("wait",)).values()
    async with engine_of(settings) as engine, engine.ticking():
        execution_id = await engine.run(WorkflowDefinition.model_validate_json(text))

        assert str(await engine.end(execution_id)) == "COMPLETED"
        assert (await engine.results(execution_id))["poll"] == {"status": "ok", "attempt": 3}


async def test_what_the_manual_says_of_waiting_runs(settings):
    shown = [json.loads(one) for one in blocks("Waiting", "json")]
    assert [one["name"] for one in shown] == ["later", "polling"]
    async with engine_of(settings) as engine, engine.ticking():
        for one in shown:
            execution_id = await engine.run(WorkflowDefinition.model_validate(one))
            assert str(await engine.end(execution_id)) == "COMPLETED"


async def explained(engine, execution_id):
    found = await Observer(engine.store, Plans(engine.store)).explain(execution_id, "A")
    return {reason.code: reason.message for reason in found.nodes[0].reasons}


async def test_a_wait_is_explained_by_what_ends_it_and_when(settings):
    async with engine_of(settings) as engine:
        execution_id = await engine.start(workflow(delayed(seconds=7_000)))
        await waiting(engine, execution_id)

        said = await explained(engine, execution_id)
        assert said.keys() == {"waiting_until"}
        assert "it waits and holds no slot, for another 1 h 56 min" in said["waiting_until"]


async def test_a_wait_that_nobody_ends_is_explained_by_the_scheduler_that_is_missing(settings):
    async with engine_of(settings) as engine:
        execution_id = await engine.start(workflow(delayed(seconds=0.01)))
        await waiting(engine, execution_id)

        async def is_late():
            return "no_scheduler" in await explained(engine, execution_id)

        await until(is_late, "its date to be over")
        await pause_execution(engine.store, execution_id)
        assert "paused" in await explained(engine, execution_id)


async def test_a_wait_without_a_record_is_explained_as_what_will_be_repaired(settings):
    async with engine_of(settings) as engine:
        execution_id = await engine.start(workflow(delayed(seconds=HOUR_S)))
        await waiting(engine, execution_id)
        await engine.redis("DEL", keys.waits(execution_id))

        assert (await explained(engine, execution_id)).keys() == {"waiting"}


async def test_the_node_shows_what_it_waits_for(settings):
    async with serving(settings) as api:
        execution_id = await api.engine.start(
            workflow(node("A", handler="poll", waits=1, after_s=HOUR_S))
        )
        await waiting(api.engine, execution_id)

        path = f"/workflows/{execution_id}/nodes"
        (listed,) = (await api.request(path))["nodes"]
        shown = await api.request(f"{path}/A")
        assert listed["waiting"] == shown["waiting"]
        assert (listed["state"], listed["waiting"]["waits_for"]) == ("WAITING", "date")
        waited_ms = listed["waiting"]["until_ms"] - listed["waiting"]["since_ms"]
        assert waited_ms == 1000 * HOUR_S
        (only,) = (await api.request(f"{path}?state=WAITING"))["nodes"]
        assert only["node_id"] == "A"


async def test_a_summary_counts_nodes_that_wait(settings):
    async with serving(settings) as api:
        execution_id = await api.engine.start(
            workflow(node("A", handler="poll", waits=1, after_s=9))
        )
        await waiting(api.engine, execution_id)

        counts = (await api.request(f"/workflows/{execution_id}/summary"))["counts"]
        assert counts["WAITING"] == 1


async def test_what_woke_several_times_took_as_long_as_from_its_first_start_to_its_end(settings):
    """The time of its last wake-up alone was said to be that of the node, which is none."""
    rows = {"map": {"over": "{{ input.rows }}"}}
    nodes = [
        delayed("delay", seconds=0.3),
        node("repeat", [], "count_calls")
        | {"repeat": {"until": "output.calls > 2", "delay_s": 0.15}},
        node("retry", [], "fail_first", times=1)
        | {"retry": {"max_attempts": 2, "delay_s": 0.3, "jitter": 0}},
        node("child", [], "workflow", name="child"),
        delayed("map", seconds=0.3) | rows,
        node("map_of_children", [], "workflow", name="child") | rows,
    ]
    registry = Registry(WITH_CHILDREN)
    async with serving(settings, registry=registry) as api, api.engine.ticking():
        engine = api.engine
        child = workflow(delayed(seconds=0.3), name="child").to_json()
        await engine.store.saved.put("child", child, plan_digest(child), About(0, 1, ""))
        execution_id = await engine.run(workflow(*nodes, input={"rows": [1]}))

        path = f"/workflows/{execution_id}"
        listed = (await api.request(f"{path}/nodes"))["nodes"]
        items = [
            (await api.request(f"{path}/nodes/{one}/items"))["items"][0]
            for one in ("map", "map_of_children")
        ]
        fields = ("node_id", "state", "began_ms", "duration_ms")
        shown = [tuple(row[one] for one in fields) for row in [*listed, *items]]
        assert [row for row in shown if row[1] != "COMPLETED" or row[3] < 200] == []
        details = [await api.request(f"{path}/nodes/{row[0]}") for row in shown]
        assert [tuple(row[one] for one in fields) for row in details] == shown
        for row in details:
            assert row["began_ms"] + row["duration_ms"] == row["finished_ms"]
            assert row["began_ms"] == row["attempts"][0]["started_ms"]
        timeline = (await api.request(f"{path}/timeline"))["nodes"]
        assert sorted(tuple(row[one] for one in fields) for row in timeline) == sorted(
            shown[: len(listed)]
        )


async def test_what_waits_has_begun_and_has_taken_no_time_yet(settings):
    async with serving(settings, registry=built_in_registry()) as api:
        execution_id = await api.engine.start(workflow(delayed(seconds=HOUR_S)))
        await waiting(api.engine, execution_id)

        (row,) = (await api.request(f"/workflows/{execution_id}/nodes"))["nodes"]

        assert (row["began_ms"], row["duration_ms"]) == (row["started_ms"], None)
