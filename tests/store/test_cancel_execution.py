"""A cancelled execution has ended: at once, whatever of it was under way."""

from __future__ import annotations

import pytest

from flowd.errors import UnknownExecution
from flowd.store.redis import keys
from tests.store.engine import CHAIN, DIAMOND, State, everything

AN_ID = "0123456789ab0123456789ab"


async def test_a_running_execution_ends_and_its_nodes_commit_no_more(engine, store, outcomes):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.claim(a)

    assert await store.lifecycle.cancel_execution(execution.id) == "cancelled"

    assert outcomes["cancel_execution"] == ["cancelled"]
    assert execution.state() == State(
        status="CANCELLED",
        nodes={"a": "RUNNING", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3", "finished_ms": "set"},
        attempts={"a": "#1 runs on w1"},
        held={"w1": ["a#1"]},
        continuations=["cancel"],
    )
    assert await worker.claim(a) == ["ended"]
    assert execution.state().held == {}


async def test_a_pending_and_a_paused_execution_can_be_cancelled(engine, store, redis):
    pending, paused = await engine.submit(CHAIN), await engine.start(DIAMOND)
    await store.lifecycle.pause_execution(paused.id)

    for execution in (pending, paused):
        assert await store.lifecycle.cancel_execution(execution.id) == "cancelled"
        assert redis.zscore(keys.FINISHED, execution.id) is not None
        assert not execution.state().is_active


async def test_a_second_cancellation_changes_nothing(engine, store, redis):
    execution = await engine.start(CHAIN)
    await store.lifecycle.cancel_execution(execution.id)
    before = everything(redis)

    assert await store.lifecycle.cancel_execution(execution.id) == "cancelled"
    assert everything(redis) == before


async def test_one_with_a_finally_is_being_cancelled_until_that_has_run(engine, store):
    execution = await engine.start({"a": [], "z": {"finally": True}})

    assert await store.lifecycle.cancel_execution(execution.id) == "cancelling"
    assert execution.state().status == "CANCELLING"
    assert await store.lifecycle.cancel_execution(execution.id, force=True) == "cancelled"
    assert execution.state().status == "CANCELLED"


async def test_what_has_ended_stays_as_it_was(engine, store, outcomes):
    worker = engine.worker()
    execution = await engine.start(CHAIN)
    await engine.finish(worker)

    assert await store.lifecycle.cancel_execution(execution.id) == "COMPLETED"
    with pytest.raises(UnknownExecution):
        await store.lifecycle.cancel_execution(AN_ID)
    assert outcomes["cancel_execution"] == ["COMPLETED", "unknown"]
