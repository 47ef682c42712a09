"""skip_nodes.lua: nodes that do not run are committed, and what waits for them hears it."""

from __future__ import annotations

import pytest

from flowd.orchestrator.executor import advance_node
from flowd.store.redis import keys
from tests.store.engine import DIAMOND, State, everything, fan, outputs_of

SKIPPED = 2**17 + 1
LOOKING = {"a": [], "b": {"dependencies": ["a"], "when": "true"}, "c": ["b"]}


async def test_a_skipped_node_has_a_reason_and_no_output_and_opens_what_waits_for_it(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(LOOKING, worker)

    assert await worker.skip(a) == ["completed"]

    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "SKIPPED", "b": "QUEUED", "c": "PENDING"},
        counters={"remaining": "2", "skipped:a": "a is not", "arrived:b": str(SKIPPED)},
        attempts={"a": "#1 ended on w1"},
        queued=["b#1"],
    )


async def test_a_join_opens_when_all_have_arrived_and_counts_who_was_skipped(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)
    await worker.complete(a)
    b, c = await worker.take()

    assert await worker.skip(b) == ["completed"]
    assert execution.state().nodes["d"] == "PENDING"
    assert await worker.complete(c) == ["completed"]

    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "COMPLETED", "b": "SKIPPED", "c": "COMPLETED", "d": "QUEUED"},
        counters={"remaining": "1", "skipped:b": "b is not", "arrived:d": str(SKIPPED + 1)},
        outputs=outputs_of("a", "c"),
        attempts=dict.fromkeys("abc", "#1 ended on w1"),
        queued=["d#1"],
    )


async def test_what_has_arrived_is_in_the_entry_where_it_is_more_than_completed_ones(engine):
    worker = engine.worker()
    _, (a,) = await engine.start_and_take(DIAMOND, worker)
    await worker.complete(a)
    b, c = await worker.take()
    await worker.skip(b)
    await worker.complete(c)
    (d,) = await worker.take()
    _, (first,) = await engine.start_and_take({"a": [], "b": ["a"]}, worker)
    await worker.skip(first)
    (second,) = await worker.take()

    assert [one.arrived for one in (a, b, c)] == [None] * 3
    assert (d.arrived, second.arrived) == (SKIPPED + 1, SKIPPED)


async def test_what_is_skipped_and_what_is_completed_travel_in_one_call(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(fan(3), worker)
    await worker.complete(a)
    first, second, third = await worker.take()
    ended = [worker.completion(first), worker.skipping(second), worker.completion(third)]

    assert (await worker.exchange(ended)).completed == ["completed"] * 3

    assert execution.state().nodes["last"] == "QUEUED"
    assert execution.state().counters["arrived:last"] == str(SKIPPED + 2)


async def test_an_execution_all_of_whose_nodes_are_skipped_is_finished(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": []}, worker)

    assert await worker.skip(a) == ["finished"]

    assert execution.state().status == "COMPLETED"


async def test_a_skip_that_ends_an_execution_with_a_failure_says_that_it_has_failed(engine):
    worker = engine.worker()
    execution, (a, b) = await engine.start_and_take({"a": [], "b": []}, worker)
    await worker.fail(a)

    assert await worker.skip(b) == ["failed"]

    assert execution.state().status == "FAILED"


async def test_a_skip_that_is_said_again_is_stale_and_changes_nothing(engine, redis):
    worker = engine.worker()
    _, (a,) = await engine.start_and_take(DIAMOND, worker)
    await worker.skip(a)
    before = everything(redis)

    assert await worker.skip(a) == ["stale"]

    assert everything(redis) == before


async def test_of_a_cancelled_execution_nothing_is_skipped(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await worker.skip(a) == ["ended"]

    assert "skipped:a" not in execution.state().counters


@pytest.mark.parametrize("field", ["arrived:c", "remaining"])
async def test_a_damaged_counter_is_told(engine, redis, field):
    worker = engine.worker()
    graph = {"a": [], "b": [], "c": ["a", "b"]}
    execution, (a, _) = await engine.start_and_take(graph, worker)
    redis.hset(execution.key(":run"), field, "many")

    assert await worker.skip(a) == ["corrupt"]


async def test_what_a_skip_opens_in_a_paused_execution_is_parked(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(LOOKING, worker)
    await engine.store.lifecycle.pause_execution(execution.id)

    assert await worker.skip(a) == ["completed"]

    assert execution.state().parked == {"b": "0"}
    assert execution.state().counters["arrived:b"] == str(SKIPPED)


async def test_the_many_dependents_of_a_skipped_node_hear_it_slice_by_slice(engine, monkeypatch):
    for room in ("store.dependents", "orchestrator.executor"):
        monkeypatch.setattr(f"flowd.{room}.DEPENDENTS_PER_CALL_MAX", 2)
    worker = engine.worker()
    graph = {"a": {"when": "false"}, **{f"w{number}": ["a"] for number in range(5)}}
    execution, (a,) = await engine.start_and_take(graph, worker)

    assert await worker.skip(a) == ["completed"]
    assert execution.state().continuations == ["advance a"]
    await advance_node(engine.store, execution.plan, execution.id, "a")

    state = execution.state()
    assert state.continuations == []
    assert {one for one in state.nodes.values() if one != "SKIPPED"} == {"QUEUED"}
    assert {state.counters[f"arrived:w{number}"] for number in range(5)} == {str(SKIPPED)}


async def test_an_event_says_that_a_node_was_skipped(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": []}, worker)

    await worker.skip(a)

    happened = [dict(fields) for _, fields in redis.xrange(keys.EVENTS)]
    (text,) = [fields["node.skipped"] for fields in happened if "node.skipped" in fields]
    assert text.startswith(f"{execution.id} a 1 ")
    assert "node.completed" not in {name for one in happened for name in one}


async def test_the_last_node_of_finally_ends_a_cancelled_execution_as_such(engine):
    worker = engine.worker()
    graph = {"a": [], "z": {"finally": True}}
    execution, (a,) = await engine.start_and_take(graph, worker)
    await worker.complete(a)
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await worker.skip(await worker.take_one()) == ["cancelled"]

    assert execution.state().status == "CANCELLED"
