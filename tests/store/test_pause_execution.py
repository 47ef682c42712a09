"""A paused execution lets no further node start; what runs goes on."""

from __future__ import annotations

import pytest

from flowd.errors import UnknownExecution
from tests.store.engine import CHAIN, DIAMOND, State, everything

AN_ID = "0123456789ab0123456789ab"


async def test_what_runs_ends_and_what_it_opens_is_kept(engine, store, outcomes):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)

    assert await store.lifecycle.pause_execution(execution.id) == "paused"
    assert await worker.complete(a) == ["completed"]

    assert outcomes["pause_execution"] == ["paused"]
    assert execution.state() == State(
        status="PAUSED",
        nodes={"a": "COMPLETED", "b": "PENDING", "c": "PENDING", "d": "PENDING"},
        counters={"remaining": "3"},
        outputs={"a": {"node": "a"}},
        attempts={"a": "#1 ended on w1"},
        parked={"b": "0", "c": "0"},
    )


async def test_the_last_node_ends_a_paused_execution(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": []}, worker)
    await store.lifecycle.pause_execution(execution.id)

    assert await worker.complete(a) == ["finished"]
    assert (execution.state().status, execution.state().is_active) == ("COMPLETED", False)


async def test_a_second_pause_changes_nothing(engine, store, redis):
    execution = await engine.start(CHAIN)
    await store.lifecycle.pause_execution(execution.id)
    before = everything(redis)

    assert await store.lifecycle.pause_execution(execution.id) == "paused"
    assert everything(redis) == before


async def test_an_execution_that_does_not_run_is_named_by_its_state(engine, store):
    worker = engine.worker()
    pending = await engine.submit(CHAIN)
    assert await store.lifecycle.pause_execution(pending.id) == "PENDING"
    done = await engine.start(CHAIN)
    await engine.finish(worker)
    assert await store.lifecycle.pause_execution(done.id) == "COMPLETED"


async def test_an_unknown_execution_cannot_be_paused(store, outcomes):
    with pytest.raises(UnknownExecution):
        await store.lifecycle.pause_execution(AN_ID)
    assert outcomes["pause_execution"] == ["unknown"]


async def test_a_child_is_paused_only_while_its_parent_is(engine, store, redis):
    parent, child = await engine.start(CHAIN), await engine.start(CHAIN)
    before = everything(redis)
    assert await store.lifecycle.pause_execution(child.id, parent_id=parent.id) == "moved"
    assert everything(redis) == before

    await store.lifecycle.pause_execution(parent.id)
    assert await store.lifecycle.pause_execution(child.id, parent_id=parent.id) == "paused"
    assert child.state().status == "PAUSED"
