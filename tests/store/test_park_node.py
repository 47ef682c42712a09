"""A node that is queued when its execution is paused is taken out of the stream."""

from __future__ import annotations

from tests.store.engine import CHAIN, State, everything


async def park(store, execution, entry):
    return await store.lifecycle.park_node(
        entry.entry_id, execution.id, entry.node_id, deaths=entry.deaths
    )


async def test_a_queued_node_of_a_paused_execution_waits_for_its_end(engine, store, outcomes):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await store.lifecycle.pause_execution(execution.id)

    assert await park(store, execution, a)

    assert outcomes["park_node"] == ["parked"]
    assert execution.state() == State(
        status="PAUSED",
        nodes=dict.fromkeys("abc", "PENDING"),
        counters={"remaining": "3"},
        parked={"a": "0"},
    )


async def test_a_node_is_left_alone_when_the_pause_is_over(engine, store, redis, outcomes):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    before = everything(redis)

    assert not await park(store, execution, a)
    assert outcomes["park_node"] == ["moved"]
    assert everything(redis) == before


async def test_a_node_that_was_taken_away_is_not_parked(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await store.lifecycle.pause_execution(execution.id)
    await store.tasks.requeue_entry(a.entry_id, "w1")

    assert await park(store, execution, a)
    assert (execution.state().parked, execution.state().queued) == ({}, ["a#2"])
