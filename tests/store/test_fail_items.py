"""fail_items: what failed of a map is counted, and stops the others where it says so."""

from __future__ import annotations

from functools import partial

import pytest

from flowd.store.redis import keys
from tests.store.engine import everything
from tests.store.maps import MapState, expanded, fail, map_state, pause, retry


async def test_a_failure_counts_and_gives_its_place_to_the_next(engine, redis):
    worker = engine.worker()
    execution, (first, _) = await expanded(engine, worker, 3, window=2)

    assert await fail(worker, first) == ["completed"]

    counters = {"n": "3", "ended": "1", "failed": "1", "bytes": "6", "failure": "fan.0: boom"}
    assert map_state(redis, execution, 3) == MapState(
        counters, [], ["1", "2"], {0: "FAILED", 1: "QUEUED", 2: "QUEUED"}
    )
    assert execution.state().nodes == {"fan": "WAITING"}
    assert "failed" not in execution.state().counters


async def test_the_first_failure_is_the_one_that_is_named(engine, redis):
    worker = engine.worker()
    execution, (first, second) = await expanded(engine, worker, 2)
    await fail(worker, second)
    await fail(worker, first)

    assert map_state(redis, execution, 2).counters["failure"] == "fan.1: boom"


async def test_failing_fast_cancels_what_has_a_place_and_waits_for_what_has_an_entry(engine, redis):
    worker = engine.worker()
    execution, (first, *_) = await expanded(engine, worker, 9, window=3, fail_fast=True)

    assert await fail(worker, first) == ["completed"]

    state = map_state(redis, execution, 9)
    assert state.items == {0: "FAILED", 1: "CANCELLED", 2: "CANCELLED"}
    assert (state.todo, state.open, state.counters["stopped"]) == ([], ["1", "2"], "failed")
    assert execution.state().nodes == {"fan": "WAITING"}


@pytest.mark.parametrize("last", ["claim", "complete", "fail", "retry", "pause", "die"])
async def test_the_last_that_ran_of_a_map_that_was_stopped_wakes_the_node(engine, redis, last):
    worker = engine.worker()
    execution, (first, second, third) = await expanded(engine, worker, 9, window=3, fail_fast=True)
    await fail(worker, first)
    assert await worker.claim(second) == ["ended"]
    assert execution.state().queued == []

    if last == "die":
        assert (await engine.store.tasks.requeue_entry(third.name, "w1"))[0] == "ended"
    else:
        say = {"claim": worker.claim, "complete": worker.complete}
        say |= {one.__name__: partial(one, worker) for one in (fail, retry, pause)}
        assert "ended" in await say[last](third)

    assert execution.state().queued == ["fan#2"]
    assert map_state(redis, execution, 9).open == []


async def test_failing_fast_bears_as_many_as_may_fail(engine, redis):
    worker = engine.worker()
    facts = {"window": 3, "fail_fast": True, "max_failed": 1}
    execution, (first, second, _) = await expanded(engine, worker, 9, **facts)

    await fail(worker, first)
    assert "stopped" not in map_state(redis, execution, 9).counters
    await fail(worker, second)
    assert map_state(redis, execution, 9).counters["stopped"] == "failed"


async def test_what_ran_when_a_map_was_stopped_ends_for_nobody(engine, redis):
    worker = engine.worker()
    execution, (first, second) = await expanded(engine, worker, 4, window=2, fail_fast=True)
    await fail(worker, first)

    assert await worker.complete(second) == ["ended"]

    assert execution.state().queued == ["fan#2"]
    assert map_state(redis, execution, 4).counters["ended"] == "1"


async def test_what_was_kept_when_a_map_was_stopped_does_not_come_back(engine):
    worker = engine.worker()
    execution, (first, second) = await expanded(engine, worker, 4, window=2, fail_fast=True)
    await engine.store.lifecycle.pause_execution(execution.id)
    await worker.complete(first)
    assert execution.state().parked == {"fan.2": "0"}

    await fail(worker, second)

    assert execution.state().parked == {"fan": "0"}


async def test_said_again_it_is_stale_and_counts_nothing(engine, redis):
    worker = engine.worker()
    _, (first, _) = await expanded(engine, worker, 2)
    await fail(worker, first)
    before = everything(redis)

    assert await fail(worker, first) == ["stale"]

    assert everything(redis) == before


async def test_of_a_cancelled_execution_no_item_fails(engine):
    worker = engine.worker()
    execution, (first, _) = await expanded(engine, worker, 2)
    await engine.store.lifecycle.cancel_execution(execution.id)

    assert await fail(worker, first) == ["ended"]


async def test_a_damaged_counter_is_told(engine, redis):
    worker = engine.worker()
    execution, (first, _) = await expanded(engine, worker, 2)
    redis.hset(keys.map_of(execution.id, "fan"), "failed", "many")

    assert await fail(worker, first) == ["corrupt"]
