"""A deletion begins in one call, and from then on the execution is unknown to everybody."""

from __future__ import annotations

import pytest

from flowd.errors import CorruptExecution, UnknownExecution
from flowd.orchestrator.plans import Plans
from flowd.store.redis import keys
from tests.store.engine import CHAIN, everything, finish_continuations

AN_ID = "0123456789ab0123456789ab"


@pytest.mark.parametrize("end", ["COMPLETED", "FAILED", "CANCELLED"])
async def test_an_execution_that_has_ended_goes_with_all_its_keys(
    engine, store, redis, outcomes, end
):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    if end == "FAILED":
        await worker.fail(a)
    elif end == "CANCELLED":
        await store.lifecycle.cancel_execution(execution.id)
    await worker.complete(a)
    await engine.finish(worker)
    redis.zrem(keys.CONTINUATIONS, f"cancel {execution.id}")
    assert execution.state().status == end

    assert await store.finished.delete_execution(execution.id) == "deleted"

    assert outcomes["delete_executions"] == [["deleted"]]
    assert redis.keys("workflow:0*") == []
    assert redis.zcard(keys.FINISHED) == redis.zcard(keys.CONTINUATIONS) == 0
    with pytest.raises(UnknownExecution):
        await store.finished.delete_execution(execution.id)
    assert outcomes["delete_executions"] == [["deleted"], ["unknown"]]


@pytest.mark.parametrize("is_paused", [False, True])
async def test_one_that_runs_stays_as_it_is(engine, store, redis, outcomes, is_paused):
    execution = await engine.start(CHAIN)
    if is_paused:
        await store.lifecycle.pause_execution(execution.id)
    before = everything(redis)

    status = await store.finished.delete_execution(execution.id)

    assert status == ("PAUSED" if is_paused else "RUNNING")
    assert outcomes["delete_executions"] == [[status]]
    assert everything(redis) == before


async def test_one_that_was_never_triggered_is_cancelled_in_the_same_call(engine, store, redis):
    """It was cancelled in a call before: a trigger between the two was cancelled along with it."""
    execution = await engine.submit(CHAIN)

    assert await store.finished.delete_execution(execution.id) == "deleted"

    said = [one for _, fields in redis.xrange(keys.EVENTS) for one in fields.items()]
    assert said[-1] == ("execution.cancelled", execution.id)
    with pytest.raises(UnknownExecution):
        await store.executions.trigger_workflow(execution.id)
    assert redis.keys("workflow:0*") == []


async def test_a_status_that_is_none_is_not_taken_for_an_end(engine, store, redis, outcomes):
    execution = await engine.submit(CHAIN)
    redis.set(execution.key(":status"), "LOST")
    before = everything(redis)

    with pytest.raises(CorruptExecution):
        await store.finished.delete_execution(execution.id)

    assert outcomes["delete_executions"] == [["corrupt"]]
    assert everything(redis) == before


async def test_what_runs_and_stands_among_the_finished_is_only_taken_out_of_there(
    engine, store, redis, outcomes
):
    execution = await engine.start(CHAIN)
    before = everything(redis)
    redis.zadd(keys.FINISHED, {execution.id: 1})

    await store.finished.delete([execution.id])

    assert outcomes["delete_executions"] == [["RUNNING"]]
    assert everything(redis) == before


async def test_a_deletion_whose_process_died_is_carried_on(engine, store, redis, monkeypatch):
    """Its keys stayed for ever where finished executions are kept: nobody knew of them."""

    async def killed(_execution_ids):
        raise ConnectionError

    execution = await engine.start(CHAIN)
    await engine.finish(engine.worker())
    with monkeypatch.context() as patch, pytest.raises(ConnectionError):
        patch.setattr(store.finished, "remove", killed)
        await store.finished.delete_execution(execution.id)
    assert execution.state().continuations == ["delete"]
    assert redis.exists(execution.key())

    await finish_continuations(store, Plans(store))

    assert redis.keys("workflow:0*") == []
    assert redis.zcard(keys.CONTINUATIONS) == 0


async def test_one_that_has_waited_leaves_nothing(engine, store, redis):
    worker = engine.worker()
    execution, entries = await engine.start_and_take({"a": [], "b": [], "c": []}, worker)
    await worker.wait(entries[0], "signal")
    await worker.wait(entries[1])
    await worker.wait(entries[2], "moment", due_ms=4_102_444_800_000)
    await store.tasks.waits.wake(execution.id, "a", "signal")
    # Deleted before its cancellation had come to its nodes.
    await store.lifecycle.cancel_execution(execution.id)

    assert await store.finished.delete_execution(execution.id) == "deleted"

    assert redis.keys("workflow:0*") == []
    assert redis.zcard(keys.RETRIES) == redis.zcard(keys.ALARMS) == 0


async def test_a_tree_is_deleted_from_its_root_and_when_all_of_it_has_ended(engine, store, redis):
    worker = engine.worker()
    parent, (a,) = await engine.start_and_take({"a": []}, worker)
    _, child = await engine.start_child(parent, "a", {"x": []})
    await worker.complete(a)
    before = everything(redis)
    assert await store.finished.delete_execution(parent.id) == "parent"
    assert everything(redis) == before
    await engine.finish(worker)

    before = everything(redis)
    assert await store.finished.delete_execution(child.id) == "child"
    assert everything(redis) == before
    assert await store.finished.delete_execution(parent.id) == "deleted"
    # Nobody is left who would take it along.
    assert await store.finished.delete_execution(child.id) == "deleted"
    assert redis.zcard(keys.EXECUTIONS) == 0
