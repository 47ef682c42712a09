"""Reconciling: every execution can still move, and one that cannot is mended or fails visibly."""

from __future__ import annotations

import itertools

import pytest

from flowd.errors import StoreUnavailable
from flowd.scheduler.reconciler import EXECUTIONS_PER_SLICE, Reconciler
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.redis import keys
from tests.store.engine import (
    CHAIN,
    DIAMOND,
    GROUP,
    STREAM,
    State,
    everything,
    fan,
    outputs_of,
    run_rounds,
)

CALLS = {"call": {"handler": "workflow", "config": {"name": "x"}}}


async def test_a_busy_system_is_left_alone(engine, redis, reconciler):
    worker = engine.worker()
    completed, entries = await engine.start_and_take({"a": []}, worker)
    await worker.complete(*entries)
    running, (entry,) = await engine.start_and_take(DIAMOND, worker)
    await worker.claim(entry)
    await engine.start_and_take(CHAIN, worker)
    wide, (first,) = await engine.start_and_take(fan(DEPENDENTS_PER_CALL_MAX + 1), worker)
    await worker.complete(first)
    await engine.start(CHAIN)
    await engine.submit(CHAIN)
    before = everything(redis)

    assert await run_rounds(reconciler, 3)

    assert everything(redis) == before
    assert {one.state().status for one in (running, wide)} == {"RUNNING"}
    assert completed.state().status == "COMPLETED"


async def test_a_round_that_broke_off_counts_for_nothing(
    engine, redis, store, reconciler, monkeypatch
):
    """Taken for a whole one, what it had not come to would have been well for a minute."""
    execution, (entry,) = await engine.start_and_take(CHAIN, engine.worker())
    redis.xdel(STREAM, entry.name)

    async def refuse(*_arguments):
        raise StoreUnavailable("away")

    with monkeypatch.context() as patch, pytest.raises(StoreUnavailable):
        patch.setattr(store.executions, "active_slice", refuse)
        await run_rounds(reconciler)
    await run_rounds(reconciler, 2)

    assert execution.state().queued == ["a#2"]


async def test_a_system_that_moves_between_the_rounds_is_left_alone(engine, reconciler):
    worker = engine.worker()
    execution = await engine.start({f"n{at}": [f"n{at - 1}"] if at else [] for at in range(12)})
    for _ in range(12):
        await run_rounds(reconciler)
        (entry,) = await worker.take()
        await run_rounds(reconciler)
        await worker.complete(entry)

    state = execution.state()
    assert state.status == "COMPLETED"
    assert set(state.attempts.values()) == {"#1 ended on w1"}


@pytest.mark.parametrize("is_running", [False, True])
async def test_a_node_whose_entry_was_deleted_by_hand_is_restored_exactly_once(
    engine, redis, reconciler, is_running, lines
):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    if is_running:
        await worker.claim(entry)
    redis.xdel(STREAM, entry.name)

    # It is suspected at first: it may have been given an entry since the round began.
    assert not await run_rounds(reconciler)
    assert redis.xlen(STREAM) == 0
    assert await run_rounds(reconciler)

    restored = State(
        status="RUNNING",
        nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3"},
        attempts={"a": "#2 queued"},
        queued=["a#2"],
    )
    assert execution.state() == restored
    await run_rounds(reconciler, 3)
    assert execution.state() == restored
    about = {"execution_id": execution.id, "node_id": "a"}
    assert lines.of("node.restored") == [("warning", about)]
    await engine.finish(engine.worker("w2"))
    state = execution.state()
    assert (state.status, state.outputs) == ("COMPLETED", outputs_of(*"abc"))


async def test_two_schedulers_restore_a_node_once(engine, redis, store, plans):
    execution = await engine.start(CHAIN)
    redis.xtrim(STREAM, maxlen=0, approximate=False)
    one, other = Reconciler(store, plans), Reconciler(store, plans)
    await run_rounds(one)
    await run_rounds(other)

    await run_rounds(one, 2)
    await run_rounds(other, 2)

    assert execution.state().queued == ["a#2"]


async def test_a_node_that_moved_between_the_rounds_is_not_restored(engine, redis, reconciler):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    ((_, fields),) = redis.xrange(STREAM)
    redis.xdel(STREAM, entry.name)
    await run_rounds(reconciler)
    # Somebody puts it back, and it completes before the next round.
    redis.xadd(STREAM, fields)
    await worker.complete(await worker.take_one())

    await run_rounds(reconciler, 2)

    assert execution.state().nodes == {"a": "COMPLETED", "b": "QUEUED", "c": "PENDING"}
    assert execution.state().queued == ["b#1"]


async def test_many_lost_entries_are_all_restored(engine, redis, reconciler):
    execution = await engine.start({f"r{number}": [] for number in range(300)})
    redis.xtrim(STREAM, maxlen=0, approximate=False)

    await run_rounds(reconciler, 2)

    assert sorted(execution.state().queued) == sorted(f"r{number}#2" for number in range(300))


async def test_a_deleted_stream_is_made_anew_with_all_that_was_in_it(engine, redis, reconciler):
    worker = engine.worker()
    executions = [await engine.start(DIAMOND) for _ in range(3)]
    await worker.complete(*await worker.take(2))
    redis.delete(STREAM)
    await engine.store.tasks.queues.ensure_groups()

    await run_rounds(reconciler, 2)
    await engine.finish(engine.worker("w2"))

    assert [execution.state().status for execution in executions] == ["COMPLETED"] * 3


@pytest.mark.parametrize(
    "damage",
    [
        lambda redis, key: redis.delete(key(":node:b")),
        lambda redis, key: redis.set(key(":node:b"), "PENDIGN"),
        lambda redis, key: (redis.delete(key(":node:b")), redis.lpush(key(":node:b"), "x")),
        lambda redis, key: redis.set(key(), "not JSON"),
        lambda redis, key: redis.set(key(), "[]"),
        lambda redis, key: redis.delete(key()),
        lambda redis, key: (redis.delete(key()), redis.lpush(key(), "x")),
        lambda redis, key: redis.set(key(":status"), "RUNING"),
        lambda redis, key: (redis.delete(key(":status")), redis.lpush(key(":status"), "x")),
    ],
    ids=[
        "node gone",
        "node no state",
        "node no string",
        "definition broken",
        "definition foreign",
        "definition gone",
        "definition no string",
        "status no state",
        "status no string",
    ],
)
async def test_damaged_keys_fail_their_execution_and_no_other(
    engine, redis, reconciler, damage, lines
):
    good = await engine.start(CHAIN)
    bad = await engine.start(CHAIN)
    before = good.state()
    damage(redis, bad.key)

    assert await run_rounds(reconciler)

    assert redis.get(bad.key(":status")) == "FAILED"
    assert redis.hget(bad.key(":run"), "error")
    assert redis.smembers(keys.ACTIVE) == {good.id}
    assert good.state() == before
    ((level, said),) = lines.of("execution.corrupt")
    assert (level, said["execution_id"]) == ("error", bad.id)


async def test_an_execution_whose_status_was_deleted_is_forgotten(engine, redis, reconciler):
    execution = await engine.start(CHAIN)
    redis.delete(execution.key(":status"))

    await run_rounds(reconciler)

    assert not redis.exists(keys.ACTIVE)
    assert not redis.exists(execution.key(":status"))


@pytest.mark.parametrize("record", ["nonsense", "x 1 2 3 w1"])
async def test_a_lost_node_with_a_broken_record_fails_its_execution(
    engine, redis, reconciler, record
):
    """The scheduler once ended with a ValueError, and did so again at each of its starts."""
    execution = await engine.start(CHAIN)
    redis.hset(execution.key(":attempts"), "a", record)
    redis.xtrim(STREAM, maxlen=0, approximate=False)

    await run_rounds(reconciler, 2)

    assert redis.get(execution.key(":status")) == "FAILED"
    assert "attempt" in redis.hget(execution.key(":run"), "error")


async def test_a_lost_node_whose_records_are_no_hash_fails_its_execution(engine, redis, reconciler):
    """An error about one execution once stopped the round for all the others."""
    lost = await engine.start(CHAIN)
    bad = await engine.start(CHAIN)
    redis.set(bad.key(":attempts"), "x")
    redis.xtrim(STREAM, maxlen=0, approximate=False)

    await run_rounds(reconciler, 2)

    assert redis.get(bad.key(":status")) == "FAILED"
    assert lost.state().queued == ["a#2"]


async def test_a_stuck_execution_fails_when_it_is_found_stuck_twice(engine, redis, reconciler):
    """Its counters were damaged: every node has ended, and yet nothing has ended it."""
    worker = engine.worker()
    execution, entries = await engine.start_and_take({"a": []}, worker)
    redis.hset(execution.key(":run"), "remaining", "7")
    await worker.complete(*entries)

    assert not await run_rounds(reconciler)
    assert execution.state().status == "RUNNING"
    assert await run_rounds(reconciler)

    assert execution.state() == State(
        status="FAILED",
        nodes={"a": "COMPLETED"},
        counters={
            "remaining": "6",
            "error": "nothing of it is left to run, yet it has not ended",
            "finished_ms": "set",
        },
        outputs=outputs_of("a"),
        attempts={"a": "#1 ended on w1"},
    )


async def test_an_execution_that_moves_is_not_stuck(engine, redis, reconciler):
    """The states of a large execution are read in several calls. One that moved from what was not
    yet read to what had been looked stuck, and twice in a row it was failed."""
    execution = await engine.start(CHAIN)
    for done in range(3):
        for at, node_id in enumerate("abc"):
            redis.set(execution.key(f":node:{node_id}"), "COMPLETED" if at < done else "PENDING")
        await run_rounds(reconciler)

    assert execution.state().status == "RUNNING"


async def test_an_execution_whose_dependents_are_still_to_be_opened_is_not_stuck(
    engine, redis, reconciler
):
    """Only the oldest hundred of what was left for later were once looked at."""
    for number in range(200):
        redis.zadd(keys.CONTINUATIONS, {f"submit {number:024x}": 1})
    worker = engine.worker()
    execution, (first,) = await engine.start_and_take(fan(DEPENDENTS_PER_CALL_MAX + 1), worker)
    await worker.complete(first)

    assert await run_rounds(reconciler, 3)

    assert execution.state().status == "RUNNING"
    assert execution.state().continuations == ["advance first"]


async def test_a_round_takes_as_many_slices_as_it_has_time_for(
    engine, redis, store, plans, monkeypatch
):
    """All of 250,000 entries were read in one tick, and whatever was due waited for that."""
    monkeypatch.setattr("flowd.scheduler.reconciler.BUDGET_S", 0.0)
    monkeypatch.setattr("flowd.scheduler.reconciler.NODES_MAX", 50)
    reconciler = Reconciler(store, plans)
    count = 3 * EXECUTIONS_PER_SLICE
    for _ in range(count):
        await engine.start({"a": []})
    redis.xtrim(STREAM, maxlen=0, approximate=False)

    slices = 1
    while not await reconciler.run_slice():
        slices += 1

    assert slices > 2 * count / 50
    assert redis.xlen(STREAM) == count


async def test_a_garbage_entry_is_left_to_whoever_takes_it(engine, redis, reconciler):
    await engine.start(CHAIN)
    redis.xadd(STREAM, {"x": "y"})
    before = everything(redis)

    assert await run_rounds(reconciler)

    assert everything(redis) == before


async def test_a_round_finds_what_a_destroyed_group_had_handed_out(engine, redis, reconciler):
    """The group was made anew by somebody who knows nothing of flowd."""
    execution, _ = await engine.start_and_take(CHAIN, engine.worker())
    redis.xgroup_destroy(STREAM, GROUP)
    redis.xgroup_create(STREAM, GROUP, "$")

    await run_rounds(reconciler)

    assert execution.state().queued == ["a#2"]


@pytest.mark.parametrize("waker", ["date", "moment", "signal"])
async def test_a_node_that_waits_with_a_waker_is_left_alone(engine, redis, reconciler, waker):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": []}, worker)
    dated = {} if waker == "signal" else {"due_ms": 4_102_444_800_000}
    await worker.wait(a, waker, **dated)
    before = everything(redis)

    assert await run_rounds(reconciler, 3)

    assert everything(redis) == before
    assert execution.state().nodes == {"a": "WAITING"}


async def test_nodes_that_wait_beside_each_other_are_left_alone(engine, redis, reconciler):
    worker = engine.worker()
    execution, entries = await engine.start_and_take({one: [] for one in "abc"}, worker)
    await worker.wait_together(entries, "signal")
    before = everything(redis)

    assert await run_rounds(reconciler, 3)

    assert everything(redis) == before
    assert execution.states() == {"WAITING": 3}


async def waiting_parent(engine, worker, **said):
    parent, (call,) = await engine.start_and_take(CALLS, worker)
    _, child = await engine.start_child(parent, "call", {"a": []})
    await worker.wait(call, "child", text=child.id, **said)
    return parent, child


@pytest.mark.parametrize("dated", [{}, {"due_ms": 3_600_000}])
async def test_a_node_that_waits_for_a_child_that_runs_is_left_alone(
    engine, redis, reconciler, dated
):
    parent, child = await waiting_parent(engine, engine.worker(), **dated)
    before = everything(redis)

    assert await run_rounds(reconciler, 3)

    assert everything(redis) == before
    assert parent.state().nodes == {"call": "WAITING"}
    assert child.state().status == "RUNNING"


@pytest.mark.parametrize("dated", [{}, {"due_ms": 3_600_000}])
async def test_a_node_whose_child_ended_unheard_begins_its_wait_anew(
    engine, redis, reconciler, dated
):
    parent, child = await waiting_parent(engine, engine.worker(), **dated)
    redis.set(child.key(":status"), "COMPLETED")

    await run_rounds(reconciler, 3)

    state = parent.state()
    assert (state.nodes, state.queued, state.waiting) == ({"call": "QUEUED"}, ["call#2"], [])


async def test_the_lost_date_of_a_node_whose_child_runs_is_found_again(engine, redis, reconciler):
    parent, _ = await waiting_parent(engine, engine.worker(), due_ms=3_600_000)
    redis.delete(keys.RETRIES)

    await run_rounds(reconciler, 3)

    state = parent.state()
    assert (state.nodes, state.waiting) == ({"call": "WAITING"}, ["call"])


async def test_a_child_nobody_waits_for_any_more_is_cancelled(engine, reconciler, lines):
    """As after three workers that died right after they had made it."""
    worker = engine.worker()
    parent, (call, other) = await engine.start_and_take({**CALLS, "other": []}, worker)
    _, child = await engine.start_child(parent, "call", {"a": []})
    await worker.claim(other)
    assert await worker.fail(call) == "failed"

    await run_rounds(reconciler)

    assert child.state().status == "CANCELLED"
    assert parent.state().status == "RUNNING"
    assert lines.of("children.orphaned") == [("warning", {"execution_id": parent.id})]


@pytest.mark.parametrize("waker", ["date", "moment", "signal"])
async def test_the_lost_date_of_a_wait_is_found_again(engine, redis, reconciler, waker):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": []}, worker)
    await worker.wait(a, waker, due_ms=4_102_444_800_000)
    before = everything(redis)
    redis.delete(keys.RETRIES, keys.ALARMS)

    await run_rounds(reconciler, 2)

    assert everything(redis) == before
    assert execution.state().nodes == {"a": "WAITING"}


async def test_a_wait_that_nothing_would_end_is_begun_anew(engine, redis, reconciler):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": []}, worker)
    await worker.wait(a, "signal")
    redis.delete(execution.key(":waits"))

    await run_rounds(reconciler, 2)

    assert execution.state().queued == ["a#2"]


async def test_an_execution_whose_waits_are_damaged_fails_visibly(engine, redis, reconciler):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": []}, worker)
    await worker.wait(a, "signal")
    redis.set(execution.key(":waits"), "x")

    await run_rounds(reconciler, 2)

    assert redis.get(execution.key(":status")) == "FAILED"


@pytest.mark.parametrize(("core_s", "least_s"), [(0.001, 60.0), (0.5, 100.0), (1_000.0, 600.0)])
async def test_rounds_that_take_long_are_further_apart(
    engine, store, plans, monkeypatch, core_s, least_s
):
    """A hundred thousand nodes that wait are looked at, and cost nobody a core."""
    await engine.start({"a": []})
    monkeypatch.setattr("flowd.scheduler.reconciler.BUDGET_S", 0.0)
    # Each slice reads it twice.
    clock = itertools.count(step=core_s)
    monkeypatch.setattr("flowd.scheduler.reconciler.time.process_time", lambda: next(clock))
    reconciler, slices = Reconciler(store, plans), 1

    while (rest := await reconciler.run(0.0)) == 0.0:
        slices += 1

    assert slices > 1
    assert rest == pytest.approx(max(60.0, min(slices * core_s * 200, 600.0)))
    assert rest >= least_s
