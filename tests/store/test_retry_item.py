"""retry_item: an item in a pause gives its place away, and queues for one when it is due."""

from __future__ import annotations

from flowd.store.redis import keys
from tests.store.engine import everything
from tests.store.maps import MapState, expanded, fail, map_state, pause, retry


async def due(engine, redis, execution, item="fan.0"):
    redis.zadd(keys.RETRIES, {f"{execution.id} {item}": 0})
    await engine.store.retries.dispatch()


async def test_a_pause_gives_the_place_to_the_next_item(engine, redis):
    worker = engine.worker()
    execution, (first,) = await expanded(engine, worker, 3, window=1)

    assert await retry(worker, first) == "retrying"

    assert map_state(redis, execution, 3) == MapState(
        {"n": "3"}, ["2"], ["1"], {0: "RETRYING", 1: "QUEUED"}
    )
    assert execution.state().waiting == ["fan.0"]


async def test_an_item_that_is_due_queues_behind_those_that_wait_for_a_place(engine, redis):
    worker = engine.worker()
    execution, (first,) = await expanded(engine, worker, 3, window=1)
    await retry(worker, first)

    await due(engine, redis, execution)

    assert map_state(redis, execution, 3).todo == ["2", "0+"]
    assert execution.state().waiting == []
    for expected in ("fan.1#1", "fan.2#1", "fan.0#2"):
        assert execution.state().queued == [expected]
        await worker.complete(await worker.take_one())
    assert execution.state().queued == ["fan#2"]


async def test_an_item_that_is_due_takes_a_free_place_at_once(engine, redis):
    worker = engine.worker()
    execution, (first,) = await expanded(engine, worker, 1, window=1)
    await retry(worker, first)

    await due(engine, redis, execution)

    (again,) = await worker.take()
    assert (again.node_id, again.attempt, again.failures) == ("fan.0", 2, 1)
    assert map_state(redis, execution, 1).open == ["0"]


async def test_an_item_that_is_due_under_a_pause_is_kept_with_a_place(engine, redis):
    worker = engine.worker()
    execution, (first,) = await expanded(engine, worker, 1, window=1)
    await retry(worker, first)
    await engine.store.lifecycle.pause_execution(execution.id)

    await due(engine, redis, execution)

    assert execution.state().parked == {"fan.0": "0"}
    assert map_state(redis, execution, 1) == MapState({"n": "1"}, [], ["0"], {0: "PENDING"})
    await engine.store.lifecycle.resume_execution(execution.id)
    (again,) = await worker.take()
    assert again.attempt == 2


async def test_an_item_that_is_due_after_its_map_was_stopped_is_cancelled(engine, redis):
    worker = engine.worker()
    execution, (first, second) = await expanded(engine, worker, 4, window=2, fail_fast=True)
    await retry(worker, first)
    await fail(worker, second)

    await due(engine, redis, execution)

    assert map_state(redis, execution, 4).items[0] == "CANCELLED"
    assert execution.state().queued == ["fan.2#1"]


async def test_said_again_it_is_stale_and_changes_nothing(engine, redis):
    worker = engine.worker()
    _, (first,) = await expanded(engine, worker, 3, window=1)
    await retry(worker, first)
    before = everything(redis)

    assert await retry(worker, first) == "stale"

    assert everything(redis) == before


async def test_of_a_cancelled_execution_no_item_is_tried_again(engine):
    worker = engine.worker()
    execution, (first,) = await expanded(engine, worker, 2, window=1)
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await retry(worker, first) == "ended"
    assert execution.state().queued == []


async def test_an_item_that_is_woken_from_a_pause_queues_for_a_place(engine, redis):
    worker = engine.worker()
    execution, (first,) = await expanded(engine, worker, 3, window=1)
    assert await pause(worker, first) == "waiting"
    assert map_state(redis, execution, 3).open == ["1"]

    await due(engine, redis, execution)

    state = map_state(redis, execution, 3)
    assert (state.todo, state.open, state.items[0]) == (["2", "0+"], ["1"], "PENDING")


async def test_an_item_that_waits_for_somebody_keeps_its_place(engine, redis):
    worker = engine.worker()
    execution, (first,) = await expanded(engine, worker, 3, window=1)

    assert await worker.wait(first, "signal") == "waiting"

    assert map_state(redis, execution, 3).open == ["0"]
    await engine.store.tasks.waits.wake(execution.id, "fan.0", "signal", "{}")
    assert execution.state().queued == ["fan.0#2"]
