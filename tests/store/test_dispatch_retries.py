"""Nodes whose next attempt is due come in front of the workers again."""

from __future__ import annotations

import asyncio

import pytest

from flowd.errors import StoreUnavailable
from flowd.scheduler.retries import DispatchRetries
from flowd.store.redis import keys
from tests.daemon import PATIENCE_S
from tests.store.engine import CHAIN, HOUR_MS, State, everything, fan, until_blocked
from tests.store.maps import expanded, map_state
from tests.store.maps import retry as retry_item
from tests.store.test_retry_node import later, retry


async def test_a_due_node_is_queued_as_its_next_attempt(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(a, failures=2, pause_ms=0))

    assert (await store.retries.dispatch()).next_in_s is None

    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3", "failures:a": "2", "error:a": "boom"},
        attempts={"a": "#2 queued"},
        queued=["a#2"],
    )
    again = await worker.take_one()
    assert (again.attempt, again.failures, again.deaths) == (2, 2, 0)


async def test_what_is_not_due_stays_and_says_when_it_will_be(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(a, pause_ms=60_000))

    assert 59 < (await store.retries.dispatch()).next_in_s <= 60
    assert execution.state().waiting == ["a"]


async def test_two_schedulers_dispatch_a_node_once(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(a, pause_ms=0))

    await asyncio.gather(*(store.retries.dispatch() for _ in range(4)))

    assert execution.state().queued == ["a#2"]


async def test_one_call_moves_no_more_than_it_may(engine, store, outcomes, monkeypatch):
    monkeypatch.setattr("flowd.store.retries.RETRIES_PER_CALL_MAX", 2)
    worker = engine.worker()
    execution, entries = await engine.start_and_take({one: [] for one in "abcde"}, worker)
    await retry(worker, *(later(entry, pause_ms=0) for entry in entries))

    await store.retries.dispatch()

    assert [moved for moved, _ in outcomes["dispatch_retries"]] == [2, 2, 1]
    assert execution.states() == {"QUEUED": 5}


async def test_a_thousand_due_nodes_are_dispatched_in_one_go(engine, store):
    worker = engine.worker()
    execution, (first,) = await engine.start_and_take(fan(1000), worker)
    await worker.complete(first)
    await retry(worker, *(later(entry, pause_ms=0) for entry in await worker.take()))

    assert execution.states() == {"COMPLETED": 1, "RETRYING": 1000, "PENDING": 1}
    await store.retries.dispatch()
    assert execution.states() == {"COMPLETED": 1, "QUEUED": 1000, "PENDING": 1}


async def test_a_node_of_a_paused_execution_is_kept_until_it_is_resumed(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(a, pause_ms=0))
    await store.lifecycle.pause_execution(execution.id)

    await store.retries.dispatch()
    state = execution.state()
    assert (state.nodes["a"], state.waiting, state.parked) == ("RETRYING", [], {"a": "0"})

    await store.lifecycle.resume_execution(execution.id)
    assert execution.state().queued == ["a#2"]


async def test_what_has_ended_or_was_damaged_meanwhile_is_only_forgotten(engine, store, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(a, pause_ms=0))
    await store.executions.fail_execution(execution.id, "damaged")
    redis.zadd(keys.RETRIES, {"nonsense": 1, "": 2, f"{execution.id} z": 3})
    stream = redis.xlen("workflow:tasks")

    await store.retries.dispatch()

    assert (redis.zcard(keys.RETRIES), redis.xlen("workflow:tasks")) == (0, stream)


async def test_an_item_that_is_due_when_its_execution_has_been_cancelled_stays_away(
    engine, store, redis
):
    worker = engine.worker()
    execution, (first, _) = await expanded(engine, worker, 2)
    await retry_item(worker, first, pause_ms=0)
    await store.lifecycle.cancel_execution(execution.id)

    await store.retries.dispatch()

    state = map_state(redis, execution, 2)
    assert (state.items[0], state.todo, execution.state().queued) == ("RETRYING", [], [])


async def test_whoever_sleeps_until_the_next_one_is_woken_by_an_earlier_one(engine, store, redis):
    worker = engine.worker()
    _, (a,) = await engine.start_and_take(CHAIN, worker)
    sleeper = asyncio.create_task(store.retries.wait_for_change(60))
    await until_blocked(redis)

    await retry(worker, later(a))

    async with asyncio.timeout(PATIENCE_S):
        await sleeper


async def test_while_nobody_knows_when_the_next_one_is_due_nobody_says_that_it_is_now(
    store, monkeypatch
):
    """A scheduler would ask again and again without a pause."""

    async def fail():
        raise StoreUnavailable("nobody is there")

    duty = DispatchRetries(store)
    duty.next_in_s = 0.0
    monkeypatch.setattr(store.retries, "dispatch", fail)
    with pytest.raises(StoreUnavailable):
        await duty.run(0.0)
    assert duty.next_in_s is None


async def test_nothing_due_writes_nothing(store, redis):
    before = everything(redis)
    assert (await store.retries.dispatch()).next_in_s is None
    assert everything(redis) == before


async def test_a_wait_that_is_over_is_decided_by_its_date(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, due_ms=0)

    assert (await store.retries.dispatch()).next_in_s is None

    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3", "waits:a": "1"},
        attempts={"a": "#2 queued"},
        queued=["a#2"],
        decisions={"a": "1 date "},
    )


async def test_the_next_date_is_said_whoever_waits_for_it(engine, store, redis):
    worker = engine.worker()
    _, (a, b) = await engine.start_and_take({"a": [], "b": []}, worker)
    await worker.wait(a)
    await worker.wait(b, "moment", due_ms=1000 * redis.time()[0] + 61_000)

    assert 59 < (await store.retries.dispatch()).next_in_s <= 61


async def test_a_clock_put_back_prolongs_no_wait_and_moves_no_moment(engine, store, redis):
    worker = engine.worker()
    execution, (a, b) = await engine.start_and_take({"a": [], "b": []}, worker)
    # As it looks when the clock was put back: it once was an hour ahead of what it says now.
    redis.hset(keys.CLOCK, "last_ms", 1000 * redis.time()[0] + HOUR_MS)
    now_ms = 1000 * redis.time()[0]
    redis.hset(keys.CLOCK, "ahead_ms", 0)
    await worker.wait(a, due_ms=HOUR_MS - 5_000)
    await worker.wait(b, "moment", due_ms=now_ms + HOUR_MS - 5_000)

    await store.retries.keep_clock(0, 2_000)
    await store.retries.dispatch()

    assert execution.state().nodes == {"a": "QUEUED", "b": "WAITING"}


async def test_a_clock_put_forward_ends_waits_early(engine, store, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": []}, worker)
    await worker.wait(a)
    redis.hset(keys.CLOCK, "ahead_ms", HOUR_MS + 1)

    await store.retries.dispatch()

    assert execution.state().nodes == {"a": "QUEUED"}


async def test_a_wait_that_ends_while_paused_is_kept_until_that_does(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, due_ms=0)
    await store.lifecycle.pause_execution(execution.id)

    await store.retries.dispatch()

    state = execution.state()
    assert (state.nodes["a"], state.waiting, state.parked) == ("PENDING", [], {"a": "0"})
    assert state.decisions == {"a": "1 date "}
    await store.lifecycle.resume_execution(execution.id)
    assert execution.state().queued == ["a#2"]


async def test_the_date_of_a_wait_whose_decisions_are_damaged_stops_no_other(engine, store, redis):
    worker = engine.worker()
    damaged, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, due_ms=0)
    redis.set(damaged.key(":decisions"), "x")
    sound, (b,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(b, due_ms=0)

    await store.retries.dispatch()

    assert (damaged.state_of("a"), sound.state_of("a")) == ("WAITING", "QUEUED")


async def test_a_sleep_is_over_by_its_own_clock_while_the_server_blocks_on(store, redis):
    """It ended by the server's, which looks ten times a second: waits ended a tenth too late."""
    await store.retries.wait_for_change(0.001)
    await until_blocked(redis)

    for _ in range(3):
        await store.retries.wait_for_change(0.001)
        assert redis.info("clients")["blocked_clients"] == 1


async def test_a_bell_that_rang_between_two_sleeps_is_heard_by_the_next(store, redis):
    await store.retries.wait_for_change(0)
    await until_blocked(redis)
    redis.lpush(keys.RETRIES_WAKEUP, "x")

    async with asyncio.timeout(PATIENCE_S):
        await store.retries.wait_for_change(600)


async def test_a_bell_whose_line_is_cut_is_said_once_and_hung_up_anew(store, redis):
    await store.retries.wait_for_change(0)
    await until_blocked(redis)
    redis.client_kill_filter(_type="normal", skipme=True)

    with pytest.raises(StoreUnavailable):
        async with asyncio.timeout(PATIENCE_S):
            await store.retries.wait_for_change(600)
    await store.retries.wait_for_change(0)
    await until_blocked(redis)
