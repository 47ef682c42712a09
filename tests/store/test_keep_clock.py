"""What waits does not wait for a server's clock that was put back to catch up."""

from __future__ import annotations

import asyncio

import pytest

from flowd.scheduler.clock import CLOCK_JUMP_MS, KeepClock
from flowd.scheduler.scheduler import Scheduler
from flowd.store.callbacks import CallbackState, DueCallback
from flowd.store.redis import keys
from tests.store.engine import CHAIN
from tests.store.test_claim_callbacks import ended
from tests.store.test_retry_node import later, retry

HOUR_MS = 3_600_000


def server_ms(redis) -> int:
    seconds, micros = redis.time()
    return 1000 * seconds + micros // 1000


def put_back(redis, by_ms: int) -> None:
    """As it looks when the clock was put back: it once was so far ahead of what it says now."""
    redis.hset(keys.CLOCK, "last_ms", server_ms(redis) + by_ms)


async def test_it_is_the_servers_until_that_is_put_back(store, redis, outcomes):
    before_ms = server_ms(redis)
    clock_ms, put_back_ms = await store.retries.keep_clock(0, CLOCK_JUMP_MS)
    assert before_ms <= clock_ms <= server_ms(redis)
    assert put_back_ms == 0
    assert outcomes["keep_clock"] == [[clock_ms, 0]]
    assert redis.hgetall(keys.CLOCK) == {"last_ms": str(clock_ms)}


async def test_it_never_goes_back_and_several_schedulers_mend_it_once(store, redis):
    """Each of them once brought everything forward by itself."""
    put_back(redis, HOUR_MS)
    found = await asyncio.gather(*(store.retries.keep_clock(0, 2_000) for _ in range(5)))

    assert sorted(by_ms > HOUR_MS - 5_000 for _, by_ms in found) == [False] * 4 + [True]
    ahead_ms = int(redis.hget(keys.CLOCK, "ahead_ms"))
    assert HOUR_MS - 5_000 < ahead_ms <= HOUR_MS
    clock_ms, _ = await store.retries.keep_clock(0, CLOCK_JUMP_MS)
    assert clock_ms >= max(each for each, _ in found)


@pytest.mark.parametrize(("by_ms", "is_mended"), [(1_500, False), (HOUR_MS, True)])
async def test_a_scheduler_sees_more_than_was_written_down(store, redis, by_ms, is_mended, lines):
    """What a clock has reached since it was last written down, only who watched it knows."""
    duty = KeepClock(store, 1.0)
    await duty.run(0.0)
    duty._last = duty._last._replace(clock_ms=duty._last.clock_ms + by_ms)
    await duty.run(1.0)
    ahead_ms = int(redis.hget(keys.CLOCK, "ahead_ms") or 0)
    assert is_mended == (HOUR_MS - 5_000 < ahead_ms <= HOUR_MS) and (is_mended or ahead_ms == 0)
    assert [level for level, _ in lines.of("redis.clock_moved_back")] == ["warning"] * is_mended


async def test_retries_and_callbacks_come_at_their_time_and_say_when_that_is(engine, store, redis):
    """Both waited for the clock to catch up, callbacks even for a scheduler that saw it happen."""
    execution = await engine.start({"a": [], "b": []})
    due_ms = server_ms(redis) + HOUR_MS
    for node_id, left_ms in (("a", -10_000), ("b", 100_000)):
        redis.set(keys.node(execution.id, node_id), "RETRYING")
        redis.hset(keys.run(execution.id), f"failures:{node_id}", 1)
        redis.zadd(keys.RETRIES, {f"{execution.id} {node_id}": due_ms + left_ms})
    redis.zadd(keys.CALLBACKS, {execution.id: due_ms - 10_000})
    due, _ = await store.callbacks.claim(5, repeat_after_ms=1_000)
    assert due == []

    put_back(redis, HOUR_MS)
    await Scheduler(store).tick(0.0)

    assert execution.state().waiting == ["b"]
    standing = (await store.nodes.retries(execution.id, ["b"]))["b"]
    assert 90_000 < standing.due_ms - server_ms(redis) <= 100_000
    assert -15_000 < (await store.callbacks.delivery(execution.id)).next_ms - server_ms(redis) < 0
    due, next_in_s = await store.callbacks.claim(5, repeat_after_ms=30_000)
    assert due == [DueCallback(execution.id, 1)]
    assert 25 < next_in_s <= 30


async def test_what_a_hand_has_written_there_stops_nothing(engine, store, redis):
    execution = await engine.start(CHAIN)
    redis.set(keys.node(execution.id, "a"), "RETRYING")
    redis.hset(keys.run(execution.id), "failures:a", 1)
    redis.zadd(keys.RETRIES, {f"{execution.id} a": 1})
    redis.hset(keys.CLOCK, mapping={"last_ms": "x", "ahead_ms": "nan"})

    assert (await store.nodes.retries(execution.id, ["a"]))["a"].due_ms == 1
    assert (await store.health.metrics.snapshot()).retries_due == 1
    assert (await store.callbacks.delivery(execution.id)).next_ms is None
    await Scheduler(store).tick(0.0)
    assert execution.state().waiting == []
    assert await store.health.troubles.duties() == []
    put_back(redis, HOUR_MS)
    await store.retries.keep_clock(0, CLOCK_JUMP_MS)
    assert int(redis.hget(keys.CLOCK, "ahead_ms")) > HOUR_MS - 5_000


async def test_an_end_is_told_whatever_clock_its_worker_has(engine, store, redis, monkeypatch):
    """It was due by the clock of whoever ended the execution, an hour ahead of the scheduler's."""
    ahead_ms = server_ms(redis) + HOUR_MS
    monkeypatch.setattr("flowd.store.lifecycle.now_ms", lambda: ahead_ms)
    execution = await engine.start(CHAIN)
    redis.hset(keys.run(execution.id), "callback", 1)
    await store.lifecycle.cancel_execution(execution.id)
    due, _ = await store.callbacks.claim(5, repeat_after_ms=1_000)
    assert due == [DueCallback(execution.id, 1)]


async def test_a_scheduler_that_died_before_the_clock_was_put_back_is_dead(store, redis):
    """Its sign of life lasted an hour: keys expire by the clock."""
    await store.health.metrics.beat()
    assert await store.health.metrics.ticked_ms() is not None
    redis.set(keys.SCHEDULER, server_ms(redis) + HOUR_MS, keepttl=True)
    assert await store.health.metrics.ticked_ms() is None
    assert (await store.health.standing.cluster_state()).scheduler_ticked_ms is None


async def test_a_clock_put_forward_is_known_before_it_is_put_back(engine, redis):
    """No scheduler has looked since: a date of then would lie an hour ahead once it is put back."""
    redis.hset(keys.CLOCK, "last_ms", server_ms(redis) - HOUR_MS)
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(entry, pause_ms=60_000))
    due_ms = redis.zscore(keys.RETRIES, f"{execution.id} a")
    assert int(redis.hget(keys.CLOCK, "last_ms")) == due_ms - 60_000


async def test_what_is_put_off_is_so_by_the_clock_that_never_goes_back(engine, store, redis):
    """By the server's own, put back an hour, all tries were over within seconds."""
    redis.hset(keys.CLOCK, "ahead_ms", HOUR_MS)
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(entry, pause_ms=60_000))
    assert redis.zscore(keys.RETRIES, f"{execution.id} a") > server_ms(redis) + HOUR_MS

    callback = ended(redis, 1)
    for put_off in (
        lambda due: store.callbacks.postpone(due, 60_000),
        lambda due: store.callbacks.settle(due, CallbackState.PENDING, pause_ms=60_000, error="no"),
    ):
        redis.zadd(keys.CALLBACKS, {callback: 1})
        ((due,), _) = await store.callbacks.claim(1, repeat_after_ms=60_000)
        assert redis.zscore(keys.CALLBACKS, callback) > server_ms(redis) + HOUR_MS
        await put_off(due)
        assert redis.zscore(keys.CALLBACKS, callback) > server_ms(redis) + HOUR_MS
