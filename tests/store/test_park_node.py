"""A node that is queued when its execution is paused is taken out of the stream."""

from __future__ import annotations

from tests.store.engine import CHAIN, State, everything


async def test_a_queued_node_of_a_paused_execution_waits_for_its_end(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await store.lifecycle.pause_execution(execution.id)

    assert await store.lifecycle.park_node(a) == "parked"

    assert execution.state() == State(
        status="PAUSED",
        nodes=dict.fromkeys("abc", "PENDING"),
        counters={"remaining": "3"},
        attempts={"a": "#1 queued"},
        parked={"a": "0"},
    )


async def test_it_comes_back_as_its_next_attempt(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await store.lifecycle.pause_execution(execution.id)
    await store.lifecycle.park_node(a)
    await store.lifecycle.resume_execution(execution.id)

    assert execution.state().queued == ["a#2"]


async def test_a_pause_makes_nobody_forget_how_many_workers_died_with_a_node(engine, store):
    """Paused and resumed again and again, what kills its workers would never be given up."""
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    for _ in range(2):
        await store.tasks.requeue_entry(a.name, "w1", is_death=True)
        a = await worker.take_one()
    await store.lifecycle.pause_execution(execution.id)
    await store.lifecycle.park_node(a)
    assert execution.state().parked == {"a": "2"}

    await store.lifecycle.resume_execution(execution.id)

    assert execution.state().queued == ["a#4 after 2 deaths"]


async def test_a_node_is_left_alone_when_the_pause_is_over(engine, store, redis):
    worker = engine.worker()
    _, (a,) = await engine.start_and_take(CHAIN, worker)
    before = everything(redis)

    assert await store.lifecycle.park_node(a) == "moved"
    assert everything(redis) == before


async def test_a_node_that_has_started_is_left_alone(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.claim(a)
    await store.lifecycle.pause_execution(execution.id)

    assert await store.lifecycle.park_node(a) == "moved"
    assert execution.state().held == {"w1": ["a#1"]}


async def test_a_node_that_was_taken_away_is_not_parked(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await store.lifecycle.pause_execution(execution.id)
    await store.tasks.requeue_entry(a.name, "w1")

    assert await store.lifecycle.park_node(a) == "stale"
    assert (execution.state().parked, execution.state().queued) == ({}, ["a#2"])
