"""cancel_items: what has not ended of a map that was stopped or cancelled."""

from __future__ import annotations

from flowd.store.endings import ItemPause
from flowd.store.redis import keys, scripts
from tests.store.engine import everything
from tests.store.maps import expanded, fail, map_state, pause, retry


async def cancel(engine, execution, first, end):
    return await engine.store.nodes.maps._client.run(
        scripts.CANCEL_ITEMS,
        (
            keys.status(execution.id),
            keys.map_of(execution.id, "fan"),
            keys.RETRIES,
            keys.ALARMS,
            keys.waits(execution.id),
            keys.map_open(execution.id, "fan"),
        ),
        *(execution.id, "fan", first, end),
    )


async def test_what_has_not_ended_of_a_cancelled_execution_is_marked_once(engine, redis):
    worker = engine.worker()
    execution, (first, second, third) = await expanded(engine, worker, 5, window=3)
    await worker.complete(first)
    await retry(worker, second)
    await worker.claim(third)
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await cancel(engine, execution, 0, 5) == 4
    assert await cancel(engine, execution, 0, 5) == 0

    states = map_state(redis, execution, 5).items
    assert states == {0: "COMPLETED", **dict.fromkeys(range(1, 5), "CANCELLED")}
    assert execution.state().waiting == map_state(redis, execution, 5).open == []


async def test_of_items_that_wait_neither_date_nor_record_nor_place_is_left(engine, redis):
    worker = engine.worker()
    execution, (first, second, third) = await expanded(engine, worker, 3)
    await pause(worker, first)
    moment = ItemPause(second, worker.completion(second).record, "moment", 1, 2**42)
    await worker.exchange(failures=[moment])
    await retry(worker, third)
    before = execution.state()
    assert (before.alarms, sorted(before.waiting)) == (["fan.1"], ["fan.0", "fan.2"])
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await cancel(engine, execution, 0, 3) == 3

    state = execution.state()
    assert (state.waiting, state.alarms, list(state.waits)) == ([], [], ["fan"])
    assert map_state(redis, execution, 3).open == []


async def test_a_slice_leaves_the_others(engine, redis):
    worker = engine.worker()
    execution, _ = await expanded(engine, worker, 4)
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await cancel(engine, execution, 1, 3) == 2

    states = map_state(redis, execution, 4).items
    assert [states[one] for one in range(4)] == ["QUEUED", "CANCELLED", "CANCELLED", "QUEUED"]


async def test_items_in_a_pause_of_a_map_that_was_stopped_are_marked(engine, redis):
    worker = engine.worker()
    execution, (first, second) = await expanded(engine, worker, 4, window=2, fail_fast=True)
    await retry(worker, first)
    await fail(worker, second)

    assert await cancel(engine, execution, 0, 4) == 1

    assert map_state(redis, execution, 4).items[0] == "CANCELLED"
    assert execution.state().waiting == []


async def test_of_a_map_that_goes_on_nothing_is_marked(engine, redis):
    execution, _ = await expanded(engine, engine.worker(), 4)
    before = everything(redis)

    assert await cancel(engine, execution, 0, 4) == 0

    assert everything(redis) == before
