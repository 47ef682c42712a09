"""Completing: a batch of nodes is committed, and each opens what waited for it."""

from __future__ import annotations

from itertools import permutations

import pytest

from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from tests.store.engine import CHAIN, DIAMOND, STREAM, State, everything, fan, outputs_of


async def test_a_completed_node_queues_what_waited_for_it_alone(engine):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take({"a": [], "b": ["a"], "c": ["a"]}, worker)

    assert await worker.complete(entry) == ["completed"]

    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "COMPLETED", "b": "QUEUED", "c": "QUEUED"},
        counters={"remaining": "2"},
        outputs=outputs_of("a"),
        attempts={"a": "#1 ended on w1"},
        queued=["b#1", "c#1"],
    )


async def test_the_attempt_record_tells_when_the_node_was_queued_and_how_long_it_ran(engine, redis):
    worker = engine.worker("w1")
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)

    await worker.complete(entry)

    assert redis.hget(execution.key(":attempts"), "a") == f"1 {entry.queued_ms} 3 7 w1"


async def test_the_last_node_finishes_its_execution(engine, redis):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take({"a": []}, worker)

    assert await worker.complete(entry) == ["finished"]

    assert execution.state() == State(
        status="COMPLETED",
        nodes={"a": "COMPLETED"},
        counters={"remaining": "0", "finished_ms": "set"},
        outputs=outputs_of("a"),
        attempts={"a": "#1 ended on w1"},
        is_active=False,
    )
    assert redis.xlen(STREAM) == 0


async def test_the_last_node_of_an_execution_with_a_failure_says_that_it_failed(engine):
    worker = engine.worker()
    execution, (bad, good) = await engine.start_and_take({"bad": [], "good": []}, worker)
    await worker.fail(bad)

    assert await worker.complete(good) == ["failed"]

    state = execution.state()
    assert (state.status, state.nodes["good"], state.is_active) == ("FAILED", "COMPLETED", False)


async def test_a_node_that_was_claimed_completes_as_one_that_was_not(engine):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take({"a": []}, worker)
    await worker.claim(entry)

    assert await worker.complete(entry) == ["finished"]

    assert execution.state().nodes == {"a": "COMPLETED"}
    assert execution.state().attempts == {"a": "#1 ended on w1"}


async def test_a_node_with_two_parents_is_queued_once(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)
    await worker.complete(a)
    b, c = await worker.take()

    assert await worker.complete(b) == ["completed"]
    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "COMPLETED", "b": "COMPLETED", "c": "QUEUED", "d": "PENDING"},
        counters={"remaining": "2", "arrived:d": "1"},
        outputs=outputs_of("a", "b"),
        attempts={"a": "#1 ended on w1", "b": "#1 ended on w1"},
        held={"w1": ["c#1"]},
    )

    assert await worker.complete(c) == ["completed"]
    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "COMPLETED", "b": "COMPLETED", "c": "COMPLETED", "d": "QUEUED"},
        counters={"remaining": "1", "arrived:d": "2"},
        outputs=outputs_of("a", "b", "c"),
        attempts=dict.fromkeys("abc", "#1 ended on w1"),
        queued=["d#1"],
    )


@pytest.mark.parametrize("is_one_call", [True, False], ids=["one call", "one call each"])
async def test_a_join_is_queued_once_whatever_the_order_of_its_parents(engine, is_one_call):
    worker = engine.worker()
    graph = {"a": [], "b": [], "c": [], "join": ["a", "b", "c"], "other": ["c", "a"]}
    for order in permutations(range(3)):
        execution, entries = await engine.start_and_take(graph, worker)
        in_order = [entries[at] for at in order]
        for batch in [in_order] if is_one_call else [[entry] for entry in in_order]:
            await worker.complete(*batch)

        state = execution.state()
        assert sorted(state.queued) == ["join#1", "other#1"]
        assert state.counters == {"remaining": "2", "arrived:join": "3", "arrived:other": "2"}
        assert set(await worker.complete(*await worker.take())) == {"completed", "finished"}
        assert execution.state().status == "COMPLETED"


async def test_a_chain_and_a_diamond_run_to_their_end(engine):
    worker = engine.worker()
    chain, diamond = await engine.start(CHAIN), await engine.start(DIAMOND)

    await engine.finish(worker)

    for execution in (chain, diamond):
        node_ids = list(execution.plan.nodes)
        state = execution.state()
        assert state.nodes == dict.fromkeys(node_ids, "COMPLETED")
        assert state.outputs == outputs_of(*node_ids)
        assert (state.status, state.queued, state.held) == ("COMPLETED", [], {})


async def test_a_completion_sent_again_after_a_lost_reply_is_stale(engine, redis):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(DIAMOND, worker)
    await worker.complete(entry)
    before = everything(redis)

    assert await worker.complete(entry) == ["stale"]

    assert everything(redis) == before
    assert execution.state().queued == ["b#1", "c#1"]


async def test_a_completion_twice_in_one_call_counts_once(engine):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(DIAMOND, worker)

    assert await worker.complete(entry, entry) == ["completed", "stale"]

    state = execution.state()
    assert (state.counters, state.queued) == ({"remaining": "3"}, ["b#1", "c#1"])


async def test_a_late_worker_is_stale_and_its_successor_completes(engine, redis):
    late, successor = engine.worker("w1"), engine.worker("w2")
    execution, (entry,) = await engine.start_and_take(CHAIN, late)
    await late.claim(entry)
    await engine.store.tasks.requeue_entry(entry.name, "w1", is_death=True)
    second = await successor.take_one()
    await successor.claim(second)
    before = everything(redis)

    assert await late.complete(entry) == ["stale"]
    assert everything(redis) == before

    assert await successor.complete(second) == ["completed"]
    assert await late.complete(entry) == ["stale"]
    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "COMPLETED", "b": "QUEUED", "c": "PENDING"},
        counters={"remaining": "2"},
        outputs=outputs_of("a"),
        attempts={"a": "#2 ended on w2"},
        queued=["b#1"],
    )


async def test_a_late_worker_does_not_touch_a_failed_node(engine, redis):
    late, other = engine.worker("w1"), engine.worker("w2")
    execution, (entry,) = await engine.start_and_take(CHAIN, late)
    await engine.store.tasks.requeue_entry(entry.name, "w1")
    await other.fail(await other.take_one())
    before = everything(redis)

    assert await late.complete(entry) == ["stale"]

    assert everything(redis) == before
    assert execution.state().status == "FAILED"


async def test_a_completion_in_an_execution_that_was_failed_only_ends_the_entry(engine, redis):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await engine.store.executions.fail_execution(execution.id, "damaged")

    assert await worker.complete(entry) == ["ended"]

    assert execution.state() == State(
        status="FAILED",
        nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3", "error": "damaged", "finished_ms": "set"},
    )
    assert redis.xlen(STREAM) == 0


async def test_a_node_that_stands_in_the_stream_twice_is_committed_once(engine, redis):
    """Two commits of one node once made an execution COMPLETED before all of it had run."""
    worker = engine.worker()
    execution = await engine.start(CHAIN)
    ((_, fields),) = redis.xrange(STREAM)
    redis.xadd(STREAM, fields)
    first, second = await worker.take()

    assert await worker.complete(first, second) == ["completed", "ended"]

    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "COMPLETED", "b": "QUEUED", "c": "PENDING"},
        counters={"remaining": "2"},
        outputs=outputs_of("a"),
        attempts={"a": "#1 ended on w1"},
        queued=["b#1"],
    )


@pytest.mark.parametrize(
    "damage",
    [
        lambda redis, run: redis.hset(run, "remaining", "many"),
        lambda redis, run: redis.hset(run, "remaining", "0"),
        lambda redis, run: redis.delete(run),
        lambda redis, run: (redis.delete(run), redis.set(run, "x")),
    ],
    ids=["no number", "too small", "missing", "no hash"],
)
async def test_damaged_counters_are_told_and_the_node_itself_is_kept(engine, redis, damage):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take({"a": [], "b": ["a"]}, worker)
    damage(redis, execution.key(":run"))

    assert await worker.complete(entry) == ["corrupt"]

    assert redis.get(execution.key(":status")) == "RUNNING"
    assert redis.get(execution.key(":node:a")) == "COMPLETED"
    assert redis.get(execution.key(":node:a:output")) == '{"node":"a"}'
    assert await engine.store.executions.fail_execution(execution.id, "its counters were damaged")
    assert await worker.complete(*await worker.take()) == ["ended"]
    assert redis.get(execution.key(":status")) == "FAILED"
    assert redis.xlen(STREAM) == 0


async def test_a_damaged_count_of_arrivals_is_told(engine, redis):
    """It was once told by nobody, and the execution stood still until it was found stuck."""
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)
    await worker.complete(a)
    b, c = await worker.take()
    redis.hset(execution.key(":run"), "arrived:d", "many")

    assert await worker.complete(b, c) == ["corrupt", "corrupt"]

    state = execution.state()
    assert state.nodes == {"a": "COMPLETED", "b": "COMPLETED", "c": "COMPLETED", "d": "PENDING"}
    assert (state.queued, state.counters["remaining"]) == ([], "1")


async def test_bad_executions_do_not_hurt_the_good_ones_in_the_same_call(engine, redis):
    worker = engine.worker()
    taken = [await engine.start_and_take(CHAIN, worker) for _ in range(8)]
    executions = [execution for execution, _ in taken]
    entries = [entry for _, (entry,) in taken]
    await worker.complete(entries[1])
    await engine.store.executions.fail_execution(executions[2].id, "damaged")
    for at, key in ((3, ":status"), (4, ":node:a"), (5, ":run"), (6, ":attempts")):
        redis.delete(executions[at].key(key))
        redis.sadd(executions[at].key(key), "a set")

    outcomes = await worker.complete(*entries)

    assert outcomes == [
        "completed",
        "stale",
        "ended",
        "ended",
        "ended",
        "corrupt",
        "completed",
        "completed",
    ]
    for at in (0, 6, 7):
        assert redis.get(executions[at].key(":node:a")) == "COMPLETED"
        assert redis.get(executions[at].key(":node:b")) == "QUEUED"
        assert redis.hget(executions[at].key(":run"), "remaining") == "2"
    for at in (2, 3):
        assert redis.get(executions[at].key(":node:a")) == "QUEUED"
        assert not redis.exists(executions[at].key(":node:a:output"))
    assert redis.type(executions[4].key(":node:a")) == "set"
    assert redis.xpending(STREAM, "workflow_group")["pending"] == 0
    # The one that was completed before, the three good ones, and the one with the broken run key.
    assert redis.xlen(STREAM) == 5


async def test_the_nodes_of_several_executions_are_committed_in_one_call(engine):
    worker = engine.worker()
    executions = [await engine.start(DIAMOND) for _ in range(20)]
    late = await worker.take()
    for entry in late[5:10]:
        await engine.store.tasks.requeue_entry(entry.name, "w1")

    outcomes = await worker.complete(*late)

    assert outcomes == ["completed"] * 5 + ["stale"] * 5 + ["completed"] * 10
    for at, execution in enumerate(executions):
        is_requeued = 5 <= at < 10
        state = execution.state()
        assert state.queued == (["a#2"] if is_requeued else ["b#1", "c#1"])
        assert state.counters == {"remaining": "4" if is_requeued else "3"}
    await engine.finish(worker)
    assert {execution.state().status for execution in executions} == {"COMPLETED"}


@pytest.mark.parametrize("width", [DEPENDENTS_PER_CALL_MAX, DEPENDENTS_PER_CALL_MAX + 1])
async def test_a_fan_wider_than_one_call_opens_is_left_to_advance_node(engine, width):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(fan(width), worker)

    assert await worker.complete(entry) == ["completed"]

    state = execution.state()
    is_too_wide = width > DEPENDENTS_PER_CALL_MAX
    assert state.continuations == (["advance first"] if is_too_wide else [])
    assert state.queued == ([] if is_too_wide else [f"m{number}#1" for number in range(width)])
    assert (state.status, state.counters) == ("RUNNING", {"remaining": str(width + 1)})


async def test_wide_joins_count_as_dependents_too(engine):
    worker = engine.worker()
    joins = {f"j{number}": ["a", "b"] for number in range(DEPENDENTS_PER_CALL_MAX)}
    execution, (a, b) = await engine.start_and_take(
        {"a": [], "b": [], **joins, "alone": ["a"]}, worker
    )

    assert await worker.complete(a, b) == ["completed", "completed"]

    state = execution.state()
    assert state.continuations == ["advance a"]
    assert state.queued == []
    assert {count for name, count in state.counters.items() if name != "remaining"} == {"1"}


async def test_outputs_and_ids_may_hold_any_bytes(engine, redis):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take({"a-1_B": []}, worker)
    output = '{"text":"\\u0000 \u00e9 \U0001f600 %s \\r\\n"}'.encode()
    completion = worker.completion(entry)._replace(output=output)

    assert (await worker.exchange([completion])).completed == ["finished"]

    assert redis.get(execution.key(":node:a-1_B:output")).encode() == output


async def test_a_completion_that_ends_an_execution_with_a_failure_says_that_it_has_failed(engine):
    worker = engine.worker()
    execution, (a, b) = await engine.start_and_take({"a": [], "b": []}, worker)
    await worker.fail(a)

    assert await worker.complete(b) == ["failed"]

    assert execution.state().status == "FAILED"


async def test_the_last_node_of_finally_ends_a_cancelled_execution_as_such(engine):
    worker = engine.worker()
    graph = {"a": [], "z": {"finally": True}}
    execution, (a,) = await engine.start_and_take(graph, worker)
    await worker.complete(a)
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await worker.complete(await worker.take_one()) == ["cancelled"]

    assert execution.state().status == "CANCELLED"
