"""Nodes that run a saved workflow: they wait for their child, and end by what has become of it."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from flowd.errors import InvalidWorkflow
from flowd.handlers.registry import Registry
from flowd.orchestrator.children import Children
from flowd.orchestrator.executor import (
    cancel_execution,
    pause_execution,
    resume_execution,
    trigger_workflow,
)
from flowd.orchestrator.pinning import pin_versions
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.store.redis import keys
from flowd.store.saved import About
from flowd.workers import slots
from flowd.workflow.graph import plan_digest
from flowd.workflow.ids import child_id, item_id
from scripts.soaking.checker import find_violations
from tests.flow import handlers
from tests.flow.engine import _HANDLERS, Engine, calls, node, until, workflow
from tests.flow.test_reads import serving
from tests.store.engine import everything

ABOUT = About(0, 1, "")
WITH_CHILDREN = {
    **_HANDLERS,
    "workflow": "flowd.handlers.builtin.workflow",
    "delay": "flowd.handlers.builtin.delay",
    "signal": "flowd.handlers.builtin.signal",
}


@pytest.fixture(autouse=True)
def _nobody_is_fated():
    yield
    handlers.FATED.clear()


def engine_of(settings, **options) -> Engine:
    return Engine(settings, registry=Registry(WITH_CHILDREN), **options)


def call(node_id="call", dependencies=(), name="report", more=(), **config):
    return node(node_id, dependencies, "workflow", name=name, **config) | dict(more)


async def save(engine, *nodes, name="report", **fields) -> int:
    definition = workflow(*nodes, name=name, **fields).to_json()
    version, _ = await engine.store.saved.put(name, definition, plan_digest(definition), ABOUT)
    return version


async def waits_for(engine, execution_id, node_id="call", number=1) -> str:
    """The child, as soon as the node waits for it."""
    child = child_id(execution_id, node_id, number)

    async def is_waiting():
        records = await engine.store.tasks.waits.records(execution_id, [node_id])
        return records[node_id] is not None and records[node_id].text == child

    await until(is_waiting, f"{node_id} to wait for {child}")
    return child


async def status_of(engine, execution_id) -> str:
    return await engine.store.executions.execution_status(execution_id)


async def output_of(engine, execution_id, node_id="call"):
    return (await engine.results(execution_id))[node_id]


async def test_a_node_completes_with_what_its_child_is_worth(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", text="{{ input.x }}"), node("B", ["A"], got="{{ A.text }}"))
        first = node("first", x=7)
        asks = call(dependencies=["first"], input={"x": "{{ first.x }}"})
        execution_id = await engine.run(workflow(first, asks, node("last", ["call"])))

        assert await output_of(engine, execution_id) == {"A": {"text": 7}, "B": {"got": 7}}
        assert await engine.states(execution_id) == dict.fromkeys(
            ("first", "call", "last"), "COMPLETED"
        )
        child = child_id(execution_id, "call", 1)
        assert await status_of(engine, child) == "COMPLETED"


async def test_a_version_is_that_of_the_parents_creation_or_the_one_it_says(settings):
    async with engine_of(settings, workers=0) as engine:
        await save(engine, node("A", text="old"))
        follows = await engine.start(workflow(call()))
        await save(engine, node("A", text="new"))
        pinned = await engine.start(workflow(call(version=1)))
        newest = await engine.start(workflow(call()))
        await engine.add_worker()
        for execution_id, text in ((follows, "old"), (pinned, "old"), (newest, "new")):
            await engine.end(execution_id)
            assert await output_of(engine, execution_id) == {"A": {"text": text}}


async def test_what_is_not_saved_is_refused_with_its_path(settings):
    async with engine_of(settings, workers=0) as engine:
        await save(engine, node("A"))
        definition = workflow(call(name="no"), call("B", version=7), call("C")).to_json()
        with pytest.raises(InvalidWorkflow) as refused:
            await pin_versions(engine.store, definition)
        assert [(one.path, one.code) for one in refused.value.problems] == [
            ("dag.nodes[0].config.name", "unknown_definition"),
            ("dag.nodes[1].config.version", "unknown_definition"),
        ]


async def test_a_child_that_failed_fails_the_node_which_names_it(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", handler="fail", text="no luck"))
        execution_id = await engine.run(workflow(call(), node("last", ["call"])))

        assert await status_of(engine, execution_id) == "FAILED"
        child = child_id(execution_id, "call", 1)
        error = (await output_of(engine, execution_id))["error"]
        assert error.startswith(f"its child {child!r} is FAILED: A: ")
        assert "no luck" in error


async def test_a_child_that_was_cancelled_never_says_success_and_is_not_tried_again(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", handler="held"))
        more = {"retry": {"max_attempts": 3, "delay_s": 0}}
        execution_id = await engine.start(workflow(call(more=more)))
        child = await waits_for(engine, execution_id)
        await cancel_execution(engine.store, child)
        await engine.end(execution_id)

        assert await status_of(engine, execution_id) == "FAILED"
        assert f"its child {child!r} is CANCELLED" in str(await output_of(engine, execution_id))
        assert not await engine.redis("EXISTS", keys.status(child_id(execution_id, "call", 2)))


async def test_a_retry_starts_a_fresh_child(settings):
    async with engine_of(settings) as engine, engine.ticking():
        await save(engine, node("A", handler="fail", text="no luck"))
        more = {"retry": {"max_attempts": 3, "delay_s": 0}}
        execution_id = await engine.run(workflow(call(more=more)))

        children = {child_id(execution_id, "call", number) for number in (1, 2, 3)}
        assert set(await engine.redis("HKEYS", keys.children(execution_id))) == children
        assert {await status_of(engine, one) for one in children} == {"FAILED"}
        error = (await output_of(engine, execution_id))["error"]
        assert error.startswith(f"attempt 3 of 3: its child {child_id(execution_id, 'call', 3)!r}")


async def test_a_time_out_stops_the_child_and_fails_the_node(settings):
    async with engine_of(settings) as engine, engine.ticking():
        await save(engine, node("A", handler="held"))
        execution_id = await engine.run(workflow(call(more={"timeout_s": 0.2})))

        child = child_id(execution_id, "call", 1)
        assert await status_of(engine, child) == "CANCELLED"
        assert await status_of(engine, execution_id) == "FAILED"
        assert (await output_of(engine, execution_id))["error"].startswith(
            f"timed out: its child {child!r}"
        )


async def test_a_cancel_reaches_grandchildren_and_nobody_else(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", handler="held"), name="leaf")
        await save(engine, call("leaf", name="leaf"), name="report")
        other = await engine.start(workflow(call("leaf", name="leaf")))
        execution_id = await engine.start(workflow(call()))
        child = await waits_for(engine, execution_id)
        grandchild = await waits_for(engine, child, "leaf")
        unharmed = await waits_for(engine, other, "leaf")

        await cancel_execution(engine.store, execution_id)

        tree = (execution_id, child, grandchild)
        assert [await status_of(engine, one) for one in tree] == ["CANCELLED"] * 3
        assert await status_of(engine, unharmed) == "RUNNING"


async def test_a_pause_and_its_end_reach_grandchildren(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", handler="held"), node("B", ["A"]), name="leaf")
        await save(engine, call("leaf", name="leaf"), name="report")
        execution_id = await engine.start(workflow(call()))
        child = await waits_for(engine, execution_id)
        grandchild = await waits_for(engine, child, "leaf")
        await until(lambda: calls(grandchild), "A to run")
        await pause_execution(engine.store, execution_id)
        handlers.GATES["A"].set()

        async def has_ended():
            return (await engine.states(grandchild))["A"] == "COMPLETED"

        await until(has_ended, "A to end")
        assert await engine.states(grandchild) == {"A": "COMPLETED", "B": "PENDING"}
        await resume_execution(engine.store, execution_id)
        await engine.end(execution_id)
        assert await status_of(engine, execution_id) == "COMPLETED"


async def test_a_node_begun_anew_comes_to_the_same_child(settings):
    """As if its worker had died right after it made the child."""
    async with engine_of(settings, workers=1) as engine:
        await save(engine, node("A", handler="held"))
        execution_id = await engine.start(workflow(call()))
        child = await waits_for(engine, execution_id)
        await engine.redis("HDEL", keys.waits(execution_id), "call")
        await engine.redis("SET", keys.node(execution_id, "call"), "QUEUED")
        await engine.redis(
            *("XADD", "workflow:tasks", "*", "execution_id", execution_id),
            *("node_id", "call", "attempt", "2", "plan", ""),
        )
        await waits_for(engine, execution_id)
        assert await engine.redis("HKEYS", keys.children(execution_id)) == [child]
        await until(lambda: handlers.GATES.get("A"), "A to run")
        handlers.GATES["A"].set()
        await engine.end(execution_id)
        assert await status_of(engine, execution_id) == "COMPLETED"
        assert calls(child) == ["A"]


async def test_who_calls_itself_is_stopped_by_the_depth_of_its_tree(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A"))
        await save(engine, call(name="report"))
        await save(engine, call(name="report"))
        execution_id = await engine.run(workflow(call()))

        # Each runs the latest there is when it is made: itself.
        assert await status_of(engine, execution_id) == "FAILED"
        error = (await output_of(engine, execution_id))["error"]
        assert "its child would be more than 16 executions deep" in error
        assert await engine.redis("HGET", keys.run(execution_id), "tree") == "16"


async def test_a_tree_grows_no_further_than_its_root_counts(settings, monkeypatch):
    monkeypatch.setattr("flowd.store.child_starts.TREE_MAX", 20)
    async with engine_of(settings) as engine:
        await save(engine, node("A"))
        await save(engine, call("one"), call("two"))
        execution_id = await engine.run(workflow(call()))

        assert await status_of(engine, execution_id) == "FAILED"
        assert await engine.redis("HGET", keys.run(execution_id), "tree") == "20"
        known = await engine.redis("ZRANGE", keys.EXECUTIONS, 0, -1)
        assert len(known) == 20
        for one in known:
            await engine.end(one)


async def test_items_of_a_map_have_a_child_each(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", n="{{ input.n }}"))
        fan = call("fan", input={"n": "{{ item }}"}) | {
            "map": {"over": "{{ input.rows }}", "concurrency": 2}
        }
        execution_id = await engine.run(workflow(fan, input={"rows": [1, 2, 3, 4, 5]}))

        output = await output_of(engine, execution_id, "fan")
        assert output["results"] == [{"A": {"n": n}} for n in (1, 2, 3, 4, 5)]
        listed = await engine.redis("HGETALL", keys.children(execution_id))
        assert dict(zip(listed[1::2], listed[::2], strict=True)) == {
            f"fan.{n} 1": child_id(execution_id, item_id("fan", n), 1) for n in range(5)
        }


async def test_a_map_that_fails_fast_leaves_no_child_behind(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", handler="held"), name="slow")
        await save(engine, node("A", handler="fail", text="no luck"), name="bad")
        fan = call("fan", name="slow") | {
            "map": {"over": "{{ input.rows }}", "fail_fast": True, "concurrency": 3}
        }
        execution_id = await engine.start(workflow(fan, input={"rows": [0, 1, 2, 3]}))
        children = [await waits_for(engine, execution_id, f"fan.{n}") for n in range(3)]
        await cancel_execution(engine.store, children[0])
        await engine.end(execution_id)

        assert await status_of(engine, execution_id) == "FAILED"
        assert [await status_of(engine, one) for one in children] == ["CANCELLED"] * 3
        assert len(await engine.redis("HKEYS", keys.children(execution_id))) == 3


async def test_choices_and_allowed_failures_work_around_a_child(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", handler="fail", text="no luck"), name="bad")
        await save(engine, node("A", text="x"))
        bad = call("bad", name="bad", more={"allow_failure": True})
        never = call("never", ["bad"], more={"when": "bad.error == 'no'"})
        mends = call("mends", ["bad"], more={"when": "bad is defined"})
        last = node("last", handler="workflow", name="report")
        document = orjson.loads(workflow(bad, never, mends).to_json())
        document["dag"]["finally"] = [last]
        execution_id = await engine.run(type(workflow(bad)).model_validate(document))

        assert await engine.states(execution_id) == {
            "bad": "FAILED",
            "never": "SKIPPED",
            "mends": "COMPLETED",
            "last": "COMPLETED",
        }
        assert await status_of(engine, execution_id) == "COMPLETED"
        assert await output_of(engine, execution_id, "mends") == {"A": {"text": "x"}}


async def test_a_thousand_children_are_cancelled_before_the_answer(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", handler="delay", seconds=3600))
        fan = call("fan") | {"map": {"over": "{{ input.rows }}", "concurrency": 200}}
        execution_id = await engine.start(workflow(fan, input={"rows": list(range(200))}))
        await asyncio.gather(*(waits_for(engine, execution_id, f"fan.{n}") for n in range(200)))

        await cancel_execution(engine.store, execution_id)

        children = await engine.redis("HKEYS", keys.children(execution_id))
        statuses = await engine.redis("MGET", *map(keys.status, children))
        assert statuses == ["CANCELLED"] * 200
        assert await engine.redis("ZCARD", keys.RETRIES) == 0


async def rerun_failed(engine, execution_id, start="failed") -> str:
    again = await rerun_execution(engine.store, await plan_rerun(engine.store, execution_id, start))
    await trigger_workflow(engine.store, again)
    await engine.end(again)
    return again


async def test_a_rerun_of_what_failed_reruns_the_children_from_their_failures(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", text="x"), node("C", ["A"], "fated"), name="leaf")
        await save(engine, node("B", text="y"), call("leaf", ["B"], name="leaf"))
        handlers.FATED |= {"C"}
        execution_id = await engine.run(workflow(node("first"), call(dependencies=["first"])))
        assert await status_of(engine, execution_id) == "FAILED"
        handlers.FATED.clear()

        again = await rerun_failed(engine, execution_id)

        assert await status_of(engine, again) == "COMPLETED"
        child = child_id(again, "call", 1)
        assert calls(again) == [] and calls(child) == []
        assert calls(child_id(child, "leaf", 1)) == ["C"]
        assert (await engine.results(again))["call"]["leaf"]["A"] == {"text": "x"}


async def test_a_rerun_from_a_node_or_with_another_input_starts_fresh_children(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", text="{{ input.x }}"), node("C", ["A"], "fated"))
        handlers.FATED |= {"C", "first"}
        asks = call(dependencies=["first"], input={"x": "{{ first.x | default(1) }}"})
        first = node("first", x=1)
        execution_id = await engine.run(workflow(first, asks))
        handlers.FATED.clear()
        again = await rerun_failed(engine, execution_id, "call")
        assert calls(child_id(again, "call", 1)) == ["A", "C"]
        # Who reads another thing than before has nothing to take over.
        await engine.redis("SET", keys.given_input(child_id(execution_id, "call", 1)), b'{"x":2}')
        other = await rerun_failed(engine, execution_id)
        assert calls(child_id(other, "call", 1)) == ["A", "C"]


async def test_a_rerun_of_a_map_reruns_the_children_of_the_items_that_failed(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", n="{{ input.n }}"), node("C", ["A"], "fated"))
        fan = call("fan", input={"n": "{{ item }}"}) | {"map": {"over": "{{ input.rows }}"}}
        handlers.FATED |= {"C"}
        execution_id = await engine.run(workflow(fan, input={"rows": [1, 2]}))
        handlers.FATED.clear()

        again = await rerun_failed(engine, execution_id)

        assert await status_of(engine, again) == "COMPLETED"
        children = [child_id(again, f"fan.{n}", 1) for n in (0, 1)]
        assert [calls(one) for one in children] == [["C"], ["C"]]


async def test_a_child_that_is_rerun_by_itself_is_nobodys_child(settings):
    async with engine_of(settings) as engine:
        await save(engine, node("A", handler="fated"))
        handlers.FATED |= {"A"}
        execution_id = await engine.run(workflow(call()))
        handlers.FATED.clear()

        again = await rerun_failed(engine, child_id(execution_id, "call", 1))

        assert await status_of(engine, again) == "COMPLETED"
        assert await engine.store.children.kin(again) is None
        assert await status_of(engine, execution_id) == "FAILED"


async def test_parent_and_child_are_linked_both_ways(settings):
    async with serving(settings, registry=Registry(WITH_CHILDREN)) as api:
        await save(api.engine, node("A", handler="held"))
        execution_id = await api.engine.start(workflow(call(), node("other")))
        child = await waits_for(api.engine, execution_id)

        listed = await api.request(f"/workflows/{execution_id}/nodes")
        row, other = listed["nodes"]
        assert row["child"] == child and "child" not in other
        assert row["waiting"]["waits_for"] == "child" and row["waiting"]["text"] == child
        detail = await api.request(f"/workflows/{execution_id}/nodes/call")
        assert detail["child"] == child
        assert await api.request(f"/workflows/{child}") == {
            "execution_id": child,
            "status": "RUNNING",
            "parent": {"execution_id": execution_id, "node_id": "call"},
            "definition": "report@1",
        }
        assert await api.request(f"/workflows/{execution_id}") == {
            "execution_id": execution_id,
            "status": "RUNNING",
        }
        why = await api.request(f"/workflows/{execution_id}/explain/call")
        (reason,) = why["nodes"][0]["reasons"]
        assert reason["code"] == "child"
        assert f"it waits for its child: {child}; GET /workflows/{child}/explain" in str(reason)
        assert f"It is the child of node 'call' of {execution_id}." in str(
            await api.request(f"/workflows/{child}/explain")
        )


async def test_a_child_is_not_deleted_before_its_parent(settings):
    async with serving(settings, registry=Registry(WITH_CHILDREN)) as api:
        await save(api.engine, node("A"))
        execution_id = await api.engine.run(workflow(call()))
        child = child_id(execution_id, "call", 1)

        refused = await api.request(f"/workflows/{child}", 409, "DELETE")
        assert refused["detail"] == (
            f"cannot delete execution {child!r}: it is a child of {execution_id!r}; "
            "delete that, and its children go with it"
        )
        await api.request(f"/workflows/{execution_id}", 200, "DELETE")
        await api.request(f"/workflows/{child}", status=404)


async def test_the_checker_knows_trees_and_what_is_wrong_with_them(settings, redis):
    async with engine_of(settings) as engine, engine.ticking():
        await save(engine, node("A", handler="fail"), name="bad")
        await save(engine, node("A"), call("leaf", name="leaf"))
        await save(engine, node("A"), name="leaf")
        more = {"retry": {"max_attempts": 2, "delay_s": 0}}
        bad = call("bad", name="bad", more=more | {"allow_failure": True})
        execution_id = await engine.run(workflow(call(), bad))
        assert find_violations(redis, [execution_id]) == []

        child, run = child_id(execution_id, "call", 1), keys.run(execution_id)
        listed = keys.children(execution_id)
        for damage, found in (
            (("hset", run, "tree", 9), "its tree has 5 executions"),
            (("hset", run, "children", 1), "0 of its children have not ended"),
            (("set", keys.status(child), "FAILED"), "call: it is COMPLETED, and no child of it is"),
            (("set", keys.status(child), "RUNNING"), "it is RUNNING, and its parent COMPLETED"),
            (("hset", listed, "x", "call 1"), "it has 2 children for call 1"),
            (("delete", keys.status(execution_id)), f"its parent {execution_id} is gone"),
        ):
            before = everything(redis)
            getattr(redis, damage[0])(*damage[1:])
            assert any(found in one for one in find_violations(redis, [])), found
            redis.flushall()
            for key, dump in before.items():
                redis.execute_command("RESTORE", key, 0, dump)


@pytest.mark.parametrize("is_quick", [True, False])
async def test_a_child_that_must_not_be_given_this_is_not_made(settings, redis, is_quick):
    day = {"type": "string"} if is_quick else {"type": "string", "pattern": "^m"}
    schema = {"type": "object", "required": ["day"], "properties": {"day": day}}
    async with engine_of(settings) as engine:
        await save(engine, node("A"), input_schema=schema, input={"of": "us"})
        bad = await engine.start(workflow(call(input={"day": 7})))
        good = await engine.start(workflow(call(input={"day": "monday"})))

        assert str(await engine.end(bad)) == "FAILED"
        error = (await output_of(engine, bad))["error"]
        assert "config.input.day: 7 is not of type 'string'" in error
        assert str(await engine.end(good)) == "COMPLETED"
        assert redis.zcard(keys.EXECUTIONS) == 3


async def test_a_step_is_not_said_to_run_unless_it_takes_long(settings, redis, monkeypatch):
    """What it waits for follows at once; each word about it would cost as much as the step."""
    monkeypatch.setattr(slots, "CLAIM_AFTER_S", 0)
    async with engine_of(settings) as engine:
        await save(engine, node("A", handler="echo_async"))
        execution_id = await engine.run(workflow(call()))
    started = [text for _, one in redis.xrange(keys.EVENTS) for text in events_of(one)]
    child = child_id(execution_id, "call", 1)
    assert {one.rpartition(" ")[0] for one in started} <= {f"{child} A"}


async def test_a_step_that_takes_long_is_said_to_run_and_hears_of_a_cancellation(
    settings, monkeypatch
):
    monkeypatch.setattr(slots, "CLAIM_AGAIN_S", 0.01)
    async with engine_of(settings, workers=1) as engine:
        await save(engine, node("A"))
        asked = asyncio.Event()

        async def never_ends(*_):
            asked.set()
            await asyncio.Event().wait()

        monkeypatch.setattr(Children, "start", never_ends)
        execution_id = await engine.start(workflow(call()))
        await asked.wait()

        async def is_running():
            return (await engine.states(execution_id))["call"] == "RUNNING"

        await until(is_running, "it to be said to run")
        await cancel_execution(engine.store, execution_id)
        (worker,) = engine.workers
        await until(lambda: not worker._shift._slots.taken, "its slot to be free")


def events_of(entry):
    """The execution, node and attempt of each `node.started`."""
    flat = [part for pair in entry.items() for part in pair]
    pairs = zip(flat[::2], flat[1::2], strict=True)
    return [" ".join(text.split()[:3]) for kind, text in pairs if kind == "node.started"]
