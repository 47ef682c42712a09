"""What the specification promises: failures, double triggers, templates, documented keys."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from flowd.handlers.registry import Registry, built_in_registry
from flowd.orchestrator.executor import submit_workflow, trigger_workflow
from flowd.workflow.definition import WorkflowDefinition
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until, workflow

SAMPLES = Path(__file__).parents[2] / "scripts" / "samples"
BUILT_IN = built_in_registry()._modules


def sample(name: str) -> WorkflowDefinition:
    return WorkflowDefinition.model_validate_json((SAMPLES / f"{name}.json").read_text())


async def entries(engine: Engine) -> list[tuple[str, str]]:
    """(execution id, node id) of what `XRANGE workflow:tasks - +` shows."""
    rows = await engine.redis("XRANGE", "workflow:tasks", "-", "+")
    fields = [dict(zip(row[1][::2], row[1][1::2], strict=True)) for row in rows]
    return [(one["execution_id"], one["node_id"]) for one in fields]


async def test_a_failed_node_fails_its_downstream_and_nothing_else(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(
                node("good"),
                node("bad", handler="fail", text="no power"),
                node("child", ["bad"]),
                node("grandchild", ["child", "good"]),
                node("free", ["good"]),
            )
        )
        assert str(await engine.end(execution_id)) == "FAILED"
        assert await engine.states(execution_id) == {
            "good": "COMPLETED",
            "bad": "FAILED",
            "child": "FAILED",
            "grandchild": "FAILED",
            "free": "COMPLETED",
        }
        assert sorted(calls(execution_id)) == ["bad", "free", "good"]
        results = await engine.results(execution_id)
        assert results["bad"] == {"error": "RuntimeError: no power"}
        assert results["child"] == {"error": "not run: it depends on 'bad', which failed"}
        assert await engine.redis("SCARD", "workflows:active") == 0


async def test_two_failures_above_one_node_end_the_execution_once(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(
                node("left", handler="fail"),
                node("right", handler="fail"),
                node("below", ["left", "right"]),
                node("last", ["below"]),
            )
        )
        assert set((await engine.states(execution_id)).values()) == {"FAILED"}
        assert await engine.redis("HGET", f"workflow:{execution_id}:run", "remaining") == "0"


async def test_a_failure_with_1500_nodes_downstream_ends_the_execution(settings):
    async with Engine(settings) as engine:
        below = [node(f"n{at}", ["bad"]) for at in range(1_500)]
        execution_id = await engine.run(workflow(node("bad", handler="fail"), *below))
        assert set((await engine.states(execution_id)).values()) == {"FAILED"}
        assert calls(execution_id) == ["bad"]
        await until(lambda: _is_empty(engine, "flowd:continuations"), "the continuation's end")


async def _is_empty(engine: Engine, key: str) -> bool:
    return await engine.redis("EXISTS", key) == 0


@pytest.mark.parametrize(
    ("handler", "config", "error"),
    [
        ("fail_unreadably", {}, "_Unreadable: (its text could not be read)"),
        ("exit", {}, "the handler called sys.exit(3)"),
        ("cancel_itself", {}, "the handler cancelled itself"),
        ("raise_base", {}, "_Foreign: not even an Exception"),
        ("raise_base_in_thread", {}, "KeyboardInterrupt"),
        ("raise_base_inline", {}, "KeyboardInterrupt"),
        ("return_list", {}, "handler 'return_list' returned list; it must return a dict"),
        ("return_set", {}, "returned what is not JSON: members is a set, which JSON has"),
        ("mean", {"mean": "nan"}, "returned what is not JSON: rows[1].mean is nan, which JSON has"),
        ("mean", {"mean": "inf"}, "returned what is not JSON: rows[1].mean is inf, which JSON has"),
        ("return_much", {"bytes": 100 * 1024 * 1024}, "bytes; at most"),
        ("missing", {}, "unknown handler 'missing'"),
    ],
)
async def test_whatever_a_handler_does_its_node_fails_and_the_worker_lives(
    settings, handler, config, error
):
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.run(workflow(node("A", handler=handler, **config)))
        assert await engine.states(execution_id) == {"A": "FAILED"}
        assert error in (await engine.results(execution_id))["A"]["error"]
        again = await engine.run(workflow(node("A")))
        assert await engine.states(again) == {"A": "COMPLETED"}


async def test_outputs_reach_the_nodes_that_name_them(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(
                node("A", items=[{"name": "pear"}], n=3),
                node("B", ["A"], text="a {{ A.items[0].name }}", n="{{ A.n }}"),
                node("C", ["B"], handler="echo_async", all="{{ A }}", b="{{ B.text }}"),
            )
        )
        results = await engine.results(execution_id)
        assert results["B"] == {"text": "a pear", "n": 3}
        assert results["C"] == {"all": {"items": [{"name": "pear"}], "n": 3}, "b": "a pear"}


async def test_an_output_is_data_and_never_rendered_again(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(
                node("A", text='{{ "{{" }} B.secret }}'),
                node("B", ["A"], text="{{ A.text }}"),
            )
        )
        assert (await engine.results(execution_id))["B"] == {"text": "{{ B.secret }}"}


async def test_a_template_that_finds_nothing_fails_its_node_and_names_the_keys(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(node("A", first=1, second=2), node("B", ["A"], text="{{ A.third }}"))
        )
        error = (await engine.results(execution_id))["B"]["error"]
        assert "third" in error
        assert "first" in error
        assert "second" in error


@pytest.mark.parametrize("name", ["linear", "fanout", "race"])
async def test_the_samples_complete_without_a_network(settings, name):
    async with Engine(settings, registry=Registry(BUILT_IN)) as engine:
        execution_id = await engine.run(sample(name))
        assert set((await engine.states(execution_id)).values()) == {"COMPLETED"}
        assert set(await engine.results(execution_id)) == {one.id for one in sample(name).dag.nodes}


async def test_the_race_sample_runs_every_node_once_though_it_is_triggered_twice(settings):
    async with Engine(settings, workers=0, registry=Registry(BUILT_IN)) as engine:
        execution_id = await submit_workflow(engine.store, sample("race"))
        assert await engine.states(execution_id) == dict.fromkeys("BCD", "PENDING")
        await trigger_workflow(engine.store, execution_id)
        await trigger_workflow(engine.store, execution_id)
        assert sorted(await entries(engine)) == [(execution_id, "B"), (execution_id, "C")]
        await engine.add_worker()
        await engine.end(execution_id)
        await trigger_workflow(engine.store, execution_id)
        assert await entries(engine) == []
        for node_id in "BCD":
            record = await engine.redis("HGET", f"workflow:{execution_id}:attempts", node_id)
            assert record.split(" ")[0] == "1"


async def test_without_a_worker_a_trigger_leaves_exactly_the_ready_nodes(settings):
    async with Engine(settings, workers=0) as engine:
        execution_id = await engine.start(workflow(node("A"), node("B"), node("C", ["A", "B"])))
        assert sorted(await entries(engine)) == [(execution_id, "A"), (execution_id, "B")]
        assert await engine.states(execution_id) == {
            "A": "QUEUED",
            "B": "QUEUED",
            "C": "PENDING",
        }
        await engine.add_worker()
        assert str(await engine.end(execution_id)) == "COMPLETED"
        assert sorted(handlers.CALLS) == [
            (execution_id, "A", 1),
            (execution_id, "B", 1),
            (execution_id, "C", 1),
        ]


async def test_the_documented_keys_hold_what_they_say(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.start(
            workflow(node("A", n=1), node("B", ["A"], handler="held"))
        )
        prefix = f"workflow:{execution_id}"
        await until(lambda: _equals(engine, f"{prefix}:node:B", "RUNNING"), "B running")
        assert await engine.redis("GET", f"{prefix}:status") == "RUNNING"
        assert await engine.redis("GET", f"{prefix}:node:A") == "COMPLETED"
        assert json.loads(await engine.redis("GET", f"{prefix}:node:A:output")) == {"n": 1}
        assert await engine.redis("SMEMBERS", "workflows:active") == [execution_id]
        definition = json.loads(await engine.redis("GET", prefix))
        assert [one["id"] for one in definition["dag"]["nodes"]] == ["A", "B"]
        handlers.GATES["B"].set()
        await engine.end(execution_id)
        assert await engine.redis("GET", f"{prefix}:status") == "COMPLETED"
        assert await engine.redis("SMEMBERS", "workflows:active") == []


async def _equals(engine: Engine, key: str, value: str) -> bool:
    return await engine.redis("GET", key) == value
