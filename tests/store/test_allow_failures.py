"""allow_failures.lua: a node that failed and may is FAILED, and COMPLETED to what waits for it."""

from __future__ import annotations

import pytest

from flowd.store.redis import keys
from tests.store.engine import State, everything, outputs_of

MAY = {"a": {"allow_failure": True}, "b": ["a"]}
ALONE = {"a": {"allow_failure": True}}
REPORT = '{"stderr": "x"}'


async def test_an_allowed_failure_opens_what_waits_for_it_and_fails_nobody(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(MAY, worker)

    assert await worker.allow(a) == ["completed"]

    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "FAILED", "b": "QUEUED"},
        counters={"remaining": "1", "report:a": REPORT, "allowed:a": "1"},
        outputs={"a": {"error": "boom"}},
        attempts={"a": "#1 ended on w1"},
        queued=["b#1"],
    )


async def test_an_execution_with_allowed_failures_only_is_completed(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(ALONE, worker)

    assert await worker.allow(a) == ["finished"]

    assert execution.state().status == "COMPLETED"


async def test_one_that_ends_an_execution_with_a_failure_says_that_it_has_failed(engine):
    worker = engine.worker()
    execution, (a, b) = await engine.start_and_take({**ALONE, "b": []}, worker)
    await worker.fail(b)

    assert await worker.allow(a) == ["failed"]

    assert execution.state().status == "FAILED"


async def test_said_again_it_is_stale_and_changes_nothing(engine, redis):
    worker = engine.worker()
    _, (a,) = await engine.start_and_take(MAY, worker)
    await worker.allow(a)
    before = everything(redis)

    assert await worker.allow(a) == ["stale"]

    assert everything(redis) == before


async def test_of_a_cancelled_execution_nothing_is_written(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(MAY, worker)
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await worker.allow(a) == ["ended"]

    assert execution.state().outputs == {}


@pytest.mark.parametrize("field", ["arrived:c", "remaining"])
async def test_a_damaged_counter_is_told(engine, redis, field):
    worker = engine.worker()
    execution, (a, _) = await engine.start_and_take({**ALONE, "b": [], "c": ["a", "b"]}, worker)
    redis.hset(execution.key(":run"), field, "many")

    assert await worker.allow(a) == ["corrupt"]


async def test_a_join_takes_it_for_a_completed_one(engine):
    worker = engine.worker()
    graph = {**ALONE, "b": [], "c": ["a", "b"]}
    execution, (a, b) = await engine.start_and_take(graph, worker)
    ended = [worker.allowed(a), worker.completion(b)]

    assert (await worker.exchange(ended)).completed == ["completed"] * 2

    assert execution.state().counters["arrived:c"] == "2"
    assert execution.state().nodes["c"] == "QUEUED"
    assert execution.state().outputs == {"a": {"error": "boom"}, **outputs_of("b")}


async def test_tokens_it_had_set_aside_are_spent(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(MAY, worker)
    await engine.store.budgets.reserve(execution.id, "a", 1, tokens=60, budget=100)

    await worker.allow(a)

    assert execution.state().counters["tokens:spent"] == "60"


async def test_its_event_is_that_of_any_failure_with_the_error(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(ALONE, worker)

    await worker.allow(a)

    happened = [dict(fields) for _, fields in redis.xrange(keys.EVENTS)]
    (text,) = [fields["node.failed"] for fields in happened if "node.failed" in fields]
    assert text.startswith(f"{execution.id} a 1 ")
    assert '"error":"boom"' in text
    assert any("execution.completed" in fields for fields in happened)


async def test_one_that_was_given_up_goes_to_the_dead_letters_as_well(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(MAY, worker)

    given_up = worker.allowed(a)._replace(dead_letter="3 workers died with it")
    assert (await worker.exchange([given_up])).completed == ["completed"]

    ((_, letter),) = redis.xrange(keys.DEAD_LETTERS)
    assert letter["reason"] == "3 workers died with it"
    assert letter["entry_id"] == a.name
    assert execution.state().dead_letters == ["a"]
    assert execution.state().nodes == {"a": "FAILED", "b": "QUEUED"}


async def test_the_last_node_of_finally_ends_a_cancelled_execution_as_such(engine):
    worker = engine.worker()
    graph = {"a": [], "z": {"finally": True, "allow_failure": True}}
    execution, (a,) = await engine.start_and_take(graph, worker)
    await worker.complete(a)
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await worker.allow(await worker.take_one()) == ["cancelled"]

    assert execution.state().status == "CANCELLED"
