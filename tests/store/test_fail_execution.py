"""Failing an execution: the last resort for keys that make no sense."""

from __future__ import annotations

import pytest

from flowd.store.redis import keys
from tests.store.engine import CHAIN, STREAM, State, everything

AN_ID = "0123456789ab0123456789ab"


async def test_a_running_execution_ends_as_failed_with_the_reason(engine, outcomes):
    execution = await engine.start(CHAIN)

    assert await engine.store.executions.fail_execution(execution.id, "its keys were damaged")

    assert outcomes["fail_execution"] == ["failed"]
    assert execution.state() == State(
        status="FAILED",
        nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3", "error": "its keys were damaged", "finished_ms": "set"},
        queued=["a#1"],
        is_active=False,
    )


async def test_what_it_had_in_the_stream_is_asked_about_before_it_starts(engine, redis):
    await engine.start(CHAIN)
    execution = await engine.start(CHAIN)
    assert not redis.exists(keys.HALTED)

    assert await engine.store.executions.fail_execution(execution.id, "its keys were damaged")

    newest = redis.xinfo_stream(STREAM)["last-generated-id"]
    assert redis.get(keys.HALTED) == newest.partition("-")[0]


async def test_an_execution_that_has_ended_keeps_its_end(engine, redis, outcomes):
    worker = engine.worker()
    completed, entries = await engine.start_and_take({"a": []}, worker)
    await worker.complete(*entries)
    failed = await engine.start(CHAIN)
    await engine.store.executions.fail_execution(failed.id, "first")
    before = everything(redis)

    assert not await engine.store.executions.fail_execution(completed.id, "late")
    assert not await engine.store.executions.fail_execution(failed.id, "late")

    assert outcomes["fail_execution"] == ["failed", "ended", "ended"]
    assert everything(redis) == before


async def test_an_execution_that_was_not_triggered_is_left_alone(engine, redis, outcomes):
    execution = await engine.submit(CHAIN)
    before = everything(redis)

    assert not await engine.store.executions.fail_execution(execution.id, "early")

    assert outcomes["fail_execution"] == ["ended"]
    assert everything(redis) == before


async def test_an_execution_without_a_status_leaves_the_active_ones(engine, redis, outcomes):
    redis.sadd(keys.ACTIVE, AN_ID)

    assert not await engine.store.executions.fail_execution(AN_ID, "gone")

    assert outcomes["fail_execution"] == ["ended"]
    assert everything(redis) == {}


@pytest.mark.parametrize(
    "damage",
    [
        lambda redis, key: redis.set(key(":status"), "RUNING"),
        lambda redis, key: (redis.delete(key(":status")), redis.lpush(key(":status"), "x")),
        lambda redis, key: (redis.delete(key(":run")), redis.set(key(":run"), "x")),
    ],
    ids=["status no state", "status no string", "run no hash"],
)
async def test_keys_of_another_type_do_not_keep_it_from_failing(engine, redis, outcomes, damage):
    execution = await engine.start(CHAIN)
    damage(redis, execution.key)

    assert await engine.store.executions.fail_execution(execution.id, "damaged")

    assert outcomes["fail_execution"] == ["failed"]
    assert redis.get(execution.key(":status")) == "FAILED"
    assert not redis.exists(keys.ACTIVE)
