"""expand_node: the first items of a map come in front of the workers."""

from __future__ import annotations

import pytest

from flowd.errors import CorruptExecution
from flowd.store.redis import keys, scripts
from tests.store.engine import everything
from tests.store.maps import MapState, expand, map_state, mapping, wait


async def call(engine, execution, n, window=50):
    of_map = (keys.map_of, keys.map_todo)
    return await engine.store.nodes.maps._client.run(
        scripts.EXPAND_NODE,
        (
            "workflow:tasks",
            keys.status(execution.id),
            keys.node(execution.id, "fan"),
            *(key(execution.id, "fan") for key in of_map),
        ),
        *(execution.id, "fan", n, window, 0, "0", 0),
    )


async def staged(engine, worker, n):
    execution, (fan,) = await engine.start_and_take(mapping(), worker)
    await engine.store.nodes.maps.stage(execution.id, "fan", list(range(n)))
    return execution, fan


async def test_as_many_items_are_opened_as_there_is_room_for(engine, redis):
    worker = engine.worker()
    execution, _ = await staged(engine, worker, 5)

    assert await call(engine, execution, 5, window=2) == "expanded"

    queued = {0: "QUEUED", 1: "QUEUED"}
    assert map_state(redis, execution, 5) == MapState(
        {"n": "5"}, ["2", "3", "4"], ["0", "1"], queued
    )
    assert execution.state().queued == ["fan.0#1", "fan.1#1"]
    assert [entry.plan_digest for entry in await worker.take()] == [execution.plan.digest] * 2


async def test_said_again_it_opens_nothing_more(engine, redis):
    execution, _ = await staged(engine, engine.worker(), 5)
    await call(engine, execution, 5, window=2)
    before = everything(redis)

    assert await call(engine, execution, 5, window=2) == "expanded"

    assert everything(redis) == before


async def test_under_a_pause_items_are_kept_with_their_places(engine, redis):
    execution, _ = await staged(engine, engine.worker(), 3)
    await engine.store.lifecycle.pause_execution(execution.id)

    assert await call(engine, execution, 3, window=2) == "expanded"

    assert execution.state().parked == {"fan.0": "0", "fan.1": "0"}
    assert map_state(redis, execution, 3).open == ["0", "1"]
    await engine.store.lifecycle.resume_execution(execution.id)
    assert execution.state().queued == ["fan.0#1", "fan.1#1"]


async def test_a_list_that_is_not_whole_is_not_begun(engine, redis):
    execution, _ = await staged(engine, engine.worker(), 3)
    before = everything(redis)

    assert await call(engine, execution, 4) == "incomplete"

    assert everything(redis) == before
    with pytest.raises(CorruptExecution):
        await expand(engine.store, execution, 4)


async def test_of_a_node_that_runs_no_more_nothing_is_opened(engine, redis):
    execution, _ = await staged(engine, engine.worker(), 3)
    await engine.store.lifecycle.cancel_execution(execution.id)
    before = everything(redis)

    assert await call(engine, execution, 3) == "ended"

    assert everything(redis) == before


@pytest.mark.parametrize("key", [keys.map_open, keys.map_todo])
async def test_a_damaged_key_is_told(engine, redis, key):
    execution, _ = await staged(engine, engine.worker(), 3)
    await call(engine, execution, 3, window=1)
    redis.hset(keys.map_of(execution.id, "fan"), "window", 3)
    redis.delete(key(execution.id, "fan"))
    redis.set(key(execution.id, "fan"), "x")

    assert await call(engine, execution, 3) == "corrupt"


async def test_items_that_all_end_before_the_node_waits_wake_it_at_once(engine):
    worker = engine.worker()
    execution, fan = await staged(engine, worker, 2)
    await call(engine, execution, 2)
    await worker.complete(*(await worker.take()))
    assert execution.state().nodes == {"fan": "QUEUED"}

    assert await wait(worker, fan) == "woken"

    assert execution.state().queued == ["fan#2"]
