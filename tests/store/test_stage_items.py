"""stage_items: the list of a map, stored once."""

from __future__ import annotations

import pytest

from flowd.store.redis import keys, scripts
from tests.store.engine import everything
from tests.store.maps import MapState, expand, expanded, map_state, mapping


async def stage(engine, execution, first, *items):
    names = (keys.status(execution.id), keys.node(execution.id, "fan"))
    of_map = (keys.map_of, keys.map_items, keys.map_todo)
    return await engine.store.nodes.maps._client.run(
        scripts.STAGE_ITEMS,
        (*names, *(key(execution.id, "fan") for key in of_map)),
        first,
        *items,
    )


async def test_a_list_is_stored_in_slices_in_its_order(engine, redis):
    execution, _ = await engine.start_and_take(mapping(), engine.worker())

    assert await stage(engine, execution, 0, "1", '"x"') == "staged"
    assert await stage(engine, execution, 2, "{}") == "staged"

    assert map_state(redis, execution, 3) == MapState({}, ["0", "1", "2"], items={})
    items = redis.hgetall(keys.map_items(execution.id, "fan"))
    assert items == {"0": "1", "1": '"x"', "2": "{}"}


async def test_a_slice_that_is_there_changes_nothing(engine, redis):
    execution, _ = await engine.start_and_take(mapping(), engine.worker())
    await stage(engine, execution, 0, "1", "2")
    before = everything(redis)

    assert await stage(engine, execution, 0, "1", "2") == "staged"

    assert everything(redis) == before


async def test_a_list_is_not_stored_again_once_items_have_begun(engine, redis):
    execution, _ = await expanded(engine, engine.worker(), 2, window=2)
    before = everything(redis)

    assert await stage(engine, execution, 0, "7", "8") == "whole"

    assert everything(redis) == before


@pytest.mark.parametrize("how", ["cancelled", "deleted", "ended"])
async def test_of_a_node_that_runs_no_more_nothing_is_stored(engine, redis, how):
    worker = engine.worker()
    execution, (fan,) = await engine.start_and_take(mapping(), worker)
    if how == "ended":
        await worker.complete(fan)
    else:
        await engine.store.lifecycle.cancel_execution(execution.id)
    if how == "deleted":
        await engine.store.finished.delete_execution(execution.id)
    before = everything(redis)

    assert await stage(engine, execution, 0, "1") == "ended"
    assert not await expand(engine.store, execution, 1)

    assert everything(redis) == before


async def test_many_items_and_large_ones_are_sent_in_bounded_slices(engine, redis):
    execution, _ = await engine.start_and_take(mapping(), engine.worker())
    items = ["x" * 700_000] * 3 + list(range(2_500))

    assert await engine.store.nodes.maps.stage(execution.id, "fan", items)

    assert redis.llen(keys.map_todo(execution.id, "fan")) == 2_503
    assert redis.hget(keys.map_items(execution.id, "fan"), "2502") == "2499"
