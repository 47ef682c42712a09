"""Failing: a node fails with everything that cannot run without it, and nothing else does."""

from __future__ import annotations

import pytest

from flowd.orchestrator.executor import node_failure
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.endings import RetryLater
from flowd.store.events import BEGINNING, behind, execution_ids, parse_event
from flowd.store.nodes import NO_REPORT, Report
from flowd.store.redis import keys
from tests.store.engine import (
    CHAIN,
    DIAMOND,
    STREAM,
    State,
    everything,
    failed_by,
    fan,
    outputs_of,
)

BOOM = {"error": "boom"}


async def test_what_a_failed_node_had_set_aside_keeps_nobody_waiting(engine, store):
    # Its worker died, three times, between the reservation and the answer.
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await store.budgets.reserve(execution.id, a.node_id, 1, tokens=60, budget=100)

    await worker.fail(a)

    usage = await store.budgets.usage(execution.id)
    assert (usage.spent, usage.reserved) == (60, 0)
    assert (await store.budgets.reserve(execution.id, "B", 1, tokens=40, budget=100)).outcome == (
        "reserved"
    )
    late = await store.budgets.reserve(execution.id, "C", 1, tokens=41, budget=100)
    assert late.outcome == "exhausted"


async def test_a_failed_node_fails_what_is_downstream_and_finishes_its_execution(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)

    assert await worker.fail(a) == "finished"

    assert execution.state() == State(
        status="FAILED",
        nodes={"a": "FAILED", "b": "FAILED", "c": "FAILED"},
        counters={"remaining": "0", "failed": "1", "finished_ms": "set"},
        outputs={"a": BOOM, **failed_by("a", "b", "c")},
        attempts={"a": "#1 ended on w1"},
        is_active=False,
    )
    assert redis.xlen(STREAM) == 0


async def test_an_independent_branch_goes_on_after_a_failure(engine):
    worker = engine.worker()
    execution, (a, x) = await engine.start_and_take(
        {"a": [], "b": ["a"], "x": [], "y": ["x"], "both": ["b", "y"]}, worker
    )

    assert await worker.fail(a) == "failed"
    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "FAILED", "b": "FAILED", "x": "QUEUED", "y": "PENDING", "both": "FAILED"},
        counters={"remaining": "2", "failed": "1"},
        outputs={"a": BOOM, **failed_by("a", "b", "both")},
        attempts={"a": "#1 ended on w1"},
        held={"w1": ["x#1"]},
    )

    await worker.complete(x)
    (y,) = await worker.take()
    assert await worker.complete(y) == ["failed"]
    assert execution.state() == State(
        status="FAILED",
        nodes={"a": "FAILED", "b": "FAILED", "x": "COMPLETED", "y": "COMPLETED", "both": "FAILED"},
        counters={"remaining": "0", "failed": "1", "arrived:both": "1", "finished_ms": "set"},
        outputs={"a": BOOM, **failed_by("a", "b", "both"), **outputs_of("x", "y")},
        attempts=dict.fromkeys("axy", "#1 ended on w1"),
        is_active=False,
    )


async def test_two_failing_branches_count_the_node_below_both_once(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)
    await worker.complete(a)
    b, c = await worker.take()

    assert await worker.fail(b) == "failed"
    assert execution.state().counters == {"remaining": "1", "failed": "1"}
    assert await worker.fail(c) == "finished"

    assert execution.state() == State(
        status="FAILED",
        nodes={"a": "COMPLETED", "b": "FAILED", "c": "FAILED", "d": "FAILED"},
        counters={"remaining": "0", "failed": "1", "finished_ms": "set"},
        outputs={**outputs_of("a"), "b": BOOM, "c": BOOM, **failed_by("b", "d")},
        attempts=dict.fromkeys("abc", "#1 ended on w1"),
        is_active=False,
    )


async def test_one_failing_and_one_completing_branch_do_not_open_the_node_below(engine):
    for is_failure_first in (True, False):
        worker = engine.worker()
        execution, (a,) = await engine.start_and_take(DIAMOND, worker)
        await worker.complete(a)
        b, c = await worker.take()

        if is_failure_first:
            assert (await worker.fail(b), await worker.complete(c)) == ("failed", ["failed"])
        else:
            assert (await worker.complete(c), await worker.fail(b)) == (["completed"], "finished")

        state = execution.state()
        assert (state.status, state.nodes["d"], state.queued) == ("FAILED", "FAILED", [])
        assert state.counters["remaining"] == "0"


async def test_a_failure_and_completions_travel_in_one_call(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)
    await worker.complete(a)
    b, c = await worker.take()

    exchange = await worker.exchange([worker.completion(b)], [worker.failure(c)])

    assert (exchange.completed, exchange.failed) == (["completed"], ["finished"])
    assert execution.state().status == "FAILED"


async def test_a_failure_sent_again_after_a_lost_reply_is_stale(engine, redis):
    worker = engine.worker()
    execution, (a, _) = await engine.start_and_take({"a": [], "b": ["a"], "x": []}, worker)
    await worker.fail(a)
    before = everything(redis)

    assert await worker.fail(a) == "stale"

    assert everything(redis) == before
    assert execution.state().counters == {"remaining": "1", "failed": "1"}


async def test_a_late_failure_does_not_harm_the_next_attempt(engine, redis):
    late, successor = engine.worker("w1"), engine.worker("w2")
    execution, (a,) = await engine.start_and_take(CHAIN, late)
    await engine.store.tasks.requeue_entry(a.name, "w1")
    second = await successor.take_one()
    before = everything(redis)

    assert await late.fail(a) == "stale"

    assert everything(redis) == before
    assert await successor.complete(second) == ["completed"]
    assert execution.state().nodes == {"a": "COMPLETED", "b": "QUEUED", "c": "PENDING"}


async def test_a_failure_in_an_execution_that_was_failed_only_ends_the_entry(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await engine.store.executions.fail_execution(execution.id, "damaged")

    assert await worker.fail(a) == "ended"

    assert execution.state() == State(
        status="FAILED",
        nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3", "error": "damaged", "finished_ms": "set"},
    )
    assert redis.xlen(STREAM) == 0


async def test_a_node_that_stands_in_the_stream_twice_ends_once(engine, redis):
    worker = engine.worker()
    execution = await engine.start(CHAIN)
    ((_, fields),) = redis.xrange(STREAM)
    redis.xadd(STREAM, fields)
    first, second = await worker.take()

    assert await worker.complete(first) == ["completed"]
    assert await worker.fail(second) == "ended"

    state = execution.state()
    assert state.nodes == {"a": "COMPLETED", "b": "QUEUED", "c": "PENDING"}
    assert (state.counters, state.queued) == ({"remaining": "2"}, ["b#1"])


@pytest.mark.parametrize(
    "damage",
    [
        lambda redis, run: redis.hset(run, "remaining", "many"),
        lambda redis, run: redis.hset(run, "remaining", "1"),
        lambda redis, run: (redis.delete(run), redis.set(run, "x")),
    ],
    ids=["no number", "too small", "no hash"],
)
async def test_damaged_counters_are_told(engine, redis, damage):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    damage(redis, execution.key(":run"))

    assert await worker.fail(a) == "corrupt"

    assert redis.get(execution.key(":status")) == "RUNNING"
    assert await engine.store.executions.fail_execution(execution.id, "damaged")
    assert redis.get(execution.key(":status")) == "FAILED"
    assert redis.xlen(STREAM) == 0


async def test_a_damaged_node_downstream_is_not_counted(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    redis.delete(execution.key(":node:b"))
    redis.lpush(execution.key(":node:b"), "a list")

    assert await worker.fail(a) == "failed"

    assert redis.get(execution.key(":node:c")) == "FAILED"
    assert redis.hget(execution.key(":run"), "remaining") == "1"
    assert redis.type(execution.key(":node:b")) == "list"


async def test_a_dead_letter_says_which_attempt_of_which_node_and_why(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)

    exchange = await worker.exchange(failures=[worker.failure(a, dead_letter="it kills workers")])

    assert exchange.failed == ["finished"]
    ((_, letter),) = redis.xrange(keys.DEAD_LETTERS)
    assert letter == {
        "reason": "it kills workers",
        "entry_id": a.name,
        "execution_id": execution.id,
        "node_id": "a",
        "attempt": f"1 {a.queued_ms} 3 7 w1",
    }


async def test_a_node_may_be_failed_outside_of_any_worker(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)

    assert await engine.store.tasks.end_attempt(worker.failure(a)) == "finished"
    assert await engine.store.tasks.end_attempt(worker.failure(a)) == "stale"

    assert execution.state().status == "FAILED"


@pytest.mark.parametrize("width", [DEPENDENTS_PER_CALL_MAX - 1, DEPENDENTS_PER_CALL_MAX])
async def test_more_downstream_than_one_call_fails_is_left_to_fail_downstream(engine, width):
    worker = engine.worker()
    execution, (first,) = await engine.start_and_take(fan(width), worker)

    outcome = await worker.fail(first)

    is_too_many = width + 1 > DEPENDENTS_PER_CALL_MAX
    assert outcome == ("failed" if is_too_many else "finished")
    state = execution.state()
    assert state.continuations == (["fail first"] if is_too_many else [])
    assert state.counters["remaining"] == ("1" if is_too_many else "0")
    assert state.nodes["last"] == ("PENDING" if is_too_many else "FAILED")
    assert state.status == ("RUNNING" if is_too_many else "FAILED")


async def test_what_a_node_reports_is_kept_beside_its_error_until_the_next_failure(
    store, engine, redis
):
    worker = engine.worker()
    execution, (a, x) = await engine.start_and_take({"a": [], "x": []}, worker)
    report = b'{"traceback":"Traceback: here","output":{"stdout":"so far"}}'
    failed = worker.failure(a)._replace(report=report)
    later = RetryLater(x, failed.record, 0, 1, "boom", report)

    await worker.exchange(failures=[failed, later])

    told = Report("Traceback: here", {"stdout": "so far"})
    assert await store.nodes.reports(execution.id, ["a", "x"]) == {"a": told, "x": told}
    assert redis.hget(execution.key(":run"), "failure") == "a: boom"
    assert execution.state().outputs == {"a": BOOM}

    await store.retries.dispatch()
    (again,) = await worker.take()
    await worker.fail(again)

    assert await store.nodes.reports(execution.id, ["a", "x"]) == {"a": told, "x": NO_REPORT}
    assert redis.hget(execution.key(":run"), "failure") == "a: boom"


async def test_the_events_of_a_failure_say_which_workflow_and_why(store, engine):
    worker = engine.worker()
    execution, (a, x) = await engine.start_and_take({"a": [], "x": []}, worker)
    long = "b\u00e4d " * 1000
    failed = node_failure(execution.plan, a, record=worker.failure(a).record, error=long)

    await worker.exchange(failures=[failed])
    await worker.complete(x)

    page = await store.events.read(BEGINNING)
    events = [
        parse_event(entry, behind(entry[0]), place)
        for entry in page.entries
        for place, _ in execution_ids(entry)
    ]
    told = {one.type: (one.node_id, one.name, one.error) for one in events[-3:]}
    brief = f"{long[:300]}…"
    assert told == {
        "node.failed": ("a", execution.plan.name, brief),
        "node.completed": ("x", None, None),
        "execution.failed": (None, execution.plan.name, f"a: {brief}"),
    }


async def test_the_last_node_of_finally_ends_a_cancelled_execution_as_such(engine):
    worker = engine.worker()
    graph = {"a": [], "z": {"finally": True}}
    execution, (a,) = await engine.start_and_take(graph, worker)
    await worker.complete(a)
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await worker.fail(await worker.take_one()) == "cancelled"

    assert execution.state().status == "CANCELLED"
