"""A resumed execution goes on where it was paused."""

from __future__ import annotations

import asyncio

import pytest

from flowd.errors import CorruptExecution, UnknownExecution
from flowd.store.executions import now_ms
from flowd.store.redis import keys, scripts
from tests.daemon import PATIENCE_S
from tests.store.engine import CHAIN, DIAMOND, State, everything, fan, finish_continuations

AN_ID = "0123456789ab0123456789ab"


async def paused_fan(engine, worker, width):
    """A fan whose first node has ended while it was paused."""
    execution, (first,) = await engine.start_and_take(fan(width), worker)
    await engine.store.lifecycle.pause_execution(execution.id)
    await worker.complete(first)
    return execution


async def resume_slice(store, execution, is_begun="0"):
    """One call, as of a process that dies behind it."""
    names = (keys.status(execution.id), keys.parked(execution.id))
    outcome, _ = await store._client.run(
        scripts.RESUME_EXECUTION,
        (*names, "workflow:tasks", keys.CONTINUATIONS),
        *(execution.id, now_ms(), 100, is_begun, "0"),
    )
    return outcome


async def test_what_was_kept_is_queued(engine, store, outcomes):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)
    await store.lifecycle.pause_execution(execution.id)
    await worker.complete(a)

    assert await store.lifecycle.resume_execution(execution.id) == "resumed"

    assert outcomes["resume_execution"] == [["resumed", "0"]]
    state = execution.state()
    assert state == State(
        status="RUNNING",
        nodes={"a": "COMPLETED", "b": "QUEUED", "c": "QUEUED", "d": "PENDING"},
        counters={"remaining": "3"},
        outputs={"a": {"node": "a"}},
        attempts={"a": "#1 ended on w1", "b": "#1 queued", "c": "#1 queued"},
        queued=state.queued,
    )
    assert sorted(state.queued) == ["b#1", "c#1"]
    await engine.finish(worker)
    assert execution.state().status == "COMPLETED"


async def test_a_wide_fan_is_resumed_to_its_last_node(engine, store):
    worker = engine.worker()
    execution = await paused_fan(engine, worker, 900)

    assert await resume_slice(store, execution) == "continue"
    assert execution.state().continuations == ["resume"]
    await store.lifecycle.resume_execution(execution.id)

    assert execution.states() == {"COMPLETED": 1, "QUEUED": 900, "PENDING": 1}
    assert (execution.state().parked, execution.state().continuations) == ({}, [])


async def test_however_many_were_kept_a_resumption_comes_to_its_end(engine, store, redis, outcomes):
    """Each slice began at the same place of the table, which the first had emptied: from 16,500
    nodes on it found nothing there, again and again, and took the scheduler along."""
    kept = 70_000
    execution, _ = await engine.start_and_take(CHAIN, engine.worker())
    await store.lifecycle.pause_execution(execution.id)
    with redis.pipeline(transaction=False) as pipe:
        for number in range(kept):
            pipe.hset(keys.parked(execution.id), f"node-{number}", 0)
        pipe.execute()

    async with asyncio.timeout(PATIENCE_S):
        assert await store.lifecycle.resume_execution(execution.id) == "resumed"

    assert redis.exists(keys.parked(execution.id)) == 0
    assert redis.xlen("workflow:tasks") == kept + 1
    assert len(outcomes["resume_execution"]) <= kept / 100


async def test_a_resumption_that_broke_off_is_carried_on(engine, store, plans):
    worker = engine.worker()
    execution = await paused_fan(engine, worker, 900)
    await resume_slice(store, execution)

    await finish_continuations(store, plans)

    assert execution.states() == {"COMPLETED": 1, "QUEUED": 900, "PENDING": 1}


async def test_a_pause_that_came_later_ends_a_resumption(engine, store):
    worker = engine.worker()
    execution = await paused_fan(engine, worker, 900)
    await resume_slice(store, execution)
    await store.lifecycle.pause_execution(execution.id)

    assert await resume_slice(store, execution, is_begun="1") == "PAUSED"
    assert (execution.state().status, execution.state().continuations) == ("PAUSED", [])


async def test_whoever_carries_a_resumption_on_does_not_undo_a_pause_that_came_later(
    engine, store, plans
):
    worker = engine.worker()
    execution = await paused_fan(engine, worker, 900)
    await resume_slice(store, execution)
    await store.lifecycle.pause_execution(execution.id)
    kept = execution.state().parked

    await finish_continuations(store, plans)

    state = execution.state()
    assert (state.status, state.parked, state.continuations) == ("PAUSED", kept, [])


async def test_an_execution_that_runs_is_left_as_it_is(engine, store, redis):
    execution = await engine.start(CHAIN)
    before = everything(redis)

    assert await store.lifecycle.resume_execution(execution.id) == "resumed"
    assert everything(redis) == before


async def test_what_cannot_be_resumed_is_named_by_its_state(engine, store, outcomes):
    pending = await engine.submit(CHAIN)
    assert await store.lifecycle.resume_execution(pending.id) == "PENDING"
    with pytest.raises(UnknownExecution):
        await store.lifecycle.resume_execution(AN_ID)
    assert outcomes["resume_execution"] == [["PENDING", "0"], ["unknown", "0"]]


@pytest.mark.parametrize("is_begun", [False, True])
async def test_a_damaged_list_of_what_was_kept_is_its_executions_trouble_alone(
    engine, redis, is_begun
):
    """The call that completed a node of it once stopped in the middle, with the nodes of others in
    it, and the worker died of the answer."""
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    other, (x,) = await engine.start_and_take(CHAIN, worker)
    await engine.store.lifecycle.pause_execution(execution.id)
    redis.set(keys.parked(execution.id), "no hash")

    assert await worker.complete(a, x) == ["completed", "completed"]
    assert other.state().nodes["b"] == "QUEUED"
    before = everything(redis)
    with pytest.raises(CorruptExecution, match="parked"):
        await engine.store.lifecycle.resume_execution(execution.id, is_begun=is_begun)
    assert everything(redis) == before


async def test_a_child_is_resumed_only_while_its_parent_runs(engine, store, redis, outcomes):
    parent, child = await engine.start(CHAIN), await engine.start(CHAIN)
    for one in (parent, child):
        await store.lifecycle.pause_execution(one.id)
    before = everything(redis)
    await store.lifecycle.resume_execution(child.id, parent_id=parent.id)
    assert outcomes["resume_execution"] == [["moved", "0"]]
    assert everything(redis) == before

    await store.lifecycle.resume_execution(parent.id)
    assert await store.lifecycle.resume_execution(child.id, parent_id=parent.id) == "resumed"
    assert child.state().status == "RUNNING"
