"""complete_items: what ended well of a map counts once, and gives its place to the next."""

from __future__ import annotations

import pytest

from flowd.store.redis import keys
from tests.store.engine import STREAM, everything
from tests.store.maps import MapState, expanded, map_state


async def test_an_end_gives_its_place_to_the_next_item(engine, redis):
    worker = engine.worker()
    execution, (first, _) = await expanded(engine, worker, 4, window=2)

    assert await worker.complete(first) == ["completed"]

    size = len(b'{"node":"fan.0"}')
    assert map_state(redis, execution, 4) == MapState(
        {"n": "4", "ended": "1", "bytes": str(size)},
        ["3"],
        ["1", "2"],
        {0: "COMPLETED", 1: "QUEUED", 2: "QUEUED"},
    )
    state = execution.state()
    assert (state.nodes, state.queued) == ({"fan": "WAITING"}, ["fan.2#1"])
    assert state.counters["remaining"] == "1"
    assert state.attempts["fan.0"] == "#1 ended on w1"


async def test_the_last_end_wakes_the_node(engine, redis):
    worker = engine.worker()
    execution, entries = await expanded(engine, worker, 3)

    assert await worker.complete(*entries) == ["completed"] * 3

    assert execution.state().nodes == {"fan": "QUEUED"}
    assert execution.state().queued == ["fan#2"]
    assert map_state(redis, execution, 3).counters["ended"] == "3"


async def test_items_of_several_maps_travel_in_one_call(engine):
    worker = engine.worker()
    one, first = await expanded(engine, worker, 2)
    other, second = await expanded(engine, worker, 1)

    assert await worker.complete(first[0], second[0], first[1]) == ["completed"] * 3

    assert one.state().queued == ["fan#2"]
    assert other.state().queued == ["fan#2"]


async def test_said_again_it_is_stale_and_counts_nothing(engine, redis):
    worker = engine.worker()
    _, (first, _) = await expanded(engine, worker, 2)
    await worker.complete(first)
    before = everything(redis)

    assert await worker.complete(first) == ["stale"]

    assert everything(redis) == before


async def test_an_attempt_that_was_taken_away_is_stale_and_the_next_counts(engine, redis):
    worker, other = engine.worker(), engine.worker("w2")
    execution, (first,) = await expanded(engine, worker, 1)
    await engine.store.tasks.requeue_entry(first.name, "w1")
    (again,) = await other.take()

    assert (again.node_id, again.attempt) == ("fan.0", 2)
    assert await worker.complete(first) == ["stale"]
    assert await other.complete(again) == ["completed"]
    assert map_state(redis, execution, 1).counters["ended"] == "1"


async def test_of_a_cancelled_execution_no_item_ends_and_none_is_opened(engine, redis):
    worker = engine.worker()
    execution, (first, _) = await expanded(engine, worker, 4, window=2)
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await worker.complete(first) == ["ended"]

    assert map_state(redis, execution, 4).todo == ["2", "3"]
    assert execution.state().queued == []


async def test_under_a_pause_the_next_item_is_kept(engine, redis):
    worker = engine.worker()
    execution, (first,) = await expanded(engine, worker, 2, window=1)
    await engine.store.lifecycle.pause_execution(execution.id)

    assert await worker.complete(first) == ["completed"]

    assert execution.state().parked == {"fan.1": "0"}
    assert map_state(redis, execution, 2).open == ["1"]


async def test_beyond_the_bytes_of_its_output_no_item_is_opened(engine, redis):
    worker = engine.worker()
    execution, (first, second) = await expanded(engine, worker, 5, window=2, bytes_max=20)
    await worker.complete(first)
    assert await worker.complete(second) == ["completed"]

    state = map_state(redis, execution, 5)
    assert state.counters["stopped"] == "bytes"
    assert (state.todo, state.open) == ([], ["2"])
    assert state.items == {0: "COMPLETED", 1: "COMPLETED", 2: "CANCELLED"}
    assert execution.state().queued == ["fan.2#1"]
    assert await worker.claim(await worker.take_one()) == ["ended"]
    assert execution.state().queued == ["fan#2"]


@pytest.mark.parametrize("field", ["ended", "bytes", "failed", "max_failed"])
async def test_a_damaged_counter_is_told(engine, redis, field):
    worker = engine.worker()
    execution, (first, _) = await expanded(engine, worker, 2)
    redis.hset(keys.map_of(execution.id, "fan"), field, "many")

    assert await worker.complete(first) == ["corrupt"]


@pytest.mark.parametrize("key", [keys.map_of, keys.map_open, keys.map_todo])
async def test_a_damaged_key_is_told(engine, redis, key):
    worker = engine.worker()
    execution, (first,) = await expanded(engine, worker, 2, window=1)
    redis.delete(key(execution.id, "fan"))
    redis.set(key(execution.id, "fan"), "x")

    assert await worker.complete(first) == ["corrupt"]


async def test_an_item_that_stands_in_the_stream_twice_counts_once(engine, redis):
    worker = engine.worker()
    execution, (first, second) = await expanded(engine, worker, 2)
    ((_, fields),) = redis.xrange(STREAM, first.name, first.name)
    redis.xadd(STREAM, fields)
    again = await worker.take_one()

    assert await worker.complete(first, again) == ["completed", "ended"]

    assert map_state(redis, execution, 2).counters["ended"] == "1"
    assert await worker.complete(second) == ["completed"]
    assert execution.state().queued == ["fan#2"]
