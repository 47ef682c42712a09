"""Reconciling maps: each item that has a place can still move, or is mended."""

from __future__ import annotations

import pytest

from flowd.store.redis import keys
from tests.store.engine import GROUP, STREAM, everything, run_rounds
from tests.store.maps import expanded, fail, retry


async def test_a_map_whose_items_are_under_way_is_left_alone(engine, redis, reconciler):
    worker = engine.worker()
    execution, (first, second, _) = await expanded(engine, worker, 9, window=3)
    await worker.claim(first)
    await retry(worker, second)
    before = everything(redis)

    assert await run_rounds(reconciler, 3)

    assert everything(redis) == before
    assert execution.state().status == "RUNNING"


async def test_a_map_whose_items_are_all_in_a_pause_is_left_alone(engine, redis, reconciler):
    worker = engine.worker()
    execution, items = await expanded(engine, worker, 2)
    for one in items:
        await retry(worker, one)
    before = everything(redis)

    assert await run_rounds(reconciler, 3)

    assert everything(redis) == before
    assert execution.state().status == "RUNNING"


@pytest.mark.parametrize("has_claimed", [True, False])
async def test_an_item_without_an_entry_is_given_one(engine, redis, reconciler, has_claimed):
    worker = engine.worker()
    execution, (first, second) = await expanded(engine, worker, 2)
    if has_claimed:
        await worker.claim(first)
    redis.xack(STREAM, GROUP, first.name)
    redis.xdel(STREAM, first.name)

    await run_rounds(reconciler, 2)

    (again,) = await worker.take()
    assert (again.node_id, again.attempt) == ("fan.0", 2)
    assert await worker.complete(again, second) == ["completed"] * 2
    assert execution.state().queued == ["fan#2"]


async def test_an_item_in_a_pause_that_has_lost_its_date_gets_another(engine, redis, reconciler):
    worker = engine.worker()
    execution, (first, _) = await expanded(engine, worker, 2)
    await retry(worker, first)
    redis.delete(keys.RETRIES)

    await run_rounds(reconciler, 2)

    assert execution.state().waiting == ["fan.0"]


async def test_a_map_that_was_not_woken_when_its_items_had_ended_is(engine, redis, reconciler):
    worker = engine.worker()
    execution, _ = await expanded(engine, worker, 2)
    redis.hset(keys.map_of(execution.id, "fan"), "ended", 2)

    await run_rounds(reconciler, 2)

    assert "fan#2" in execution.state().queued


async def test_a_stopped_item_without_an_entry_holds_up_nobody(engine, redis, reconciler):
    worker = engine.worker()
    execution, (first, second) = await expanded(engine, worker, 4, window=2, fail_fast=True)
    await fail(worker, first)
    await run_rounds(reconciler, 3)
    assert execution.state().nodes == {"fan": "WAITING"}
    redis.xack(STREAM, GROUP, second.name)
    redis.xdel(STREAM, second.name)

    await run_rounds(reconciler, 2)

    assert execution.state().queued == ["fan#2"]


async def test_a_map_of_which_nothing_is_left_fails_its_execution(engine, redis, reconciler):
    worker = engine.worker()
    execution, (first,) = await expanded(engine, worker, 3, window=1)
    redis.delete(keys.map_todo(execution.id, "fan"))
    await worker.complete(first)

    await run_rounds(reconciler, 2)

    assert execution.state().status == "FAILED"
