"""A failed attempt takes its node out of the stream until the next one is due."""

from __future__ import annotations

from flowd.store.endings import RetryLater
from flowd.store.redis import keys
from tests.store.engine import CHAIN, DIAMOND, State, everything


def later(entry, failures=1, pause_ms=60_000):
    record = f"{entry.attempt} {entry.queued_ms} 3 7 w1"
    return RetryLater(entry, record, pause_ms, failures, "boom")


async def retry(worker, *retries):
    outcomes = []
    while len(outcomes) < len(retries):
        outcomes += (await worker.exchange(failures=retries[len(outcomes) :])).failed
    return outcomes


async def test_a_node_that_failed_waits_outside_of_the_stream(engine, redis, outcomes):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)

    assert await retry(worker, later(a)) == ["retrying"]

    assert outcomes["retry_node"] == ["retrying"]
    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "RETRYING", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3", "failures:a": "1", "error:a": "boom"},
        attempts={"a": "#1 ended on w1"},
        waiting=["a"],
    )
    ((member, due_ms),) = redis.zrange(keys.RETRIES, 0, -1, withscores=True)
    assert member == f"{execution.id} a"
    assert 50_000 < due_ms - 1000 * redis.time()[0] < 61_001
    ((_, happened),) = redis.xrevrange(keys.EVENTS, count=1)
    assert happened["node.retrying"].startswith(f"{execution.id} a 1 ")


async def test_a_retry_sent_again_after_a_lost_reply_is_stale(engine, redis):
    worker = engine.worker()
    _, (a,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(a))
    before = everything(redis)

    assert await retry(worker, later(a)) == ["stale"]
    assert everything(redis) == before


async def test_a_retry_in_an_execution_that_has_ended_only_ends_the_entry(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await engine.store.executions.fail_execution(execution.id, "damaged")

    assert await retry(worker, later(a)) == ["ended"]
    assert (execution.state().waiting, execution.state().held) == ([], {})


async def test_only_a_retry_that_is_due_before_all_others_rings_the_bell(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)
    await worker.complete(a)
    b, c = await worker.take()

    await retry(worker, later(b, pause_ms=20_000))
    assert redis.lrange(keys.RETRIES_WAKEUP, 0, -1) == [f"{execution.id} b"]
    await retry(worker, later(c, pause_ms=30_000))
    assert redis.lrange(keys.RETRIES_WAKEUP, 0, -1) == [f"{execution.id} b"]
