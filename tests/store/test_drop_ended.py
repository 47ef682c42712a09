"""drop_ended.lua: what nobody will meet in a queue that nobody reads, and needs no more, goes."""

from __future__ import annotations

import pytest

from flowd.diagnosis.readiness import check
from flowd.orchestrator.executor import cancel_execution
from flowd.store.redis import keys
from tests.store.engine import GROUP, STREAM, everything, run_rounds

GPU = keys.task_stream(STREAM, "gpu")
LONE = {"a": {"queue": "gpu"}}
CLEANUP = {"a": {"queue": "gpu"}, "z": {"finally": True}}


@pytest.mark.parametrize("is_deleted", [False, True], ids=["cancelled", "deleted"])
async def test_an_unread_queue_is_named_only_while_something_waits_in_it(
    engine, store, redis, reconciler, is_deleted
):
    left = await engine.start(LONE)
    ended = await engine.start(LONE)
    await cancel_execution(store, ended.id)
    if is_deleted:
        await store.finished.remove([ended.id])
    await run_rounds(reconciler)

    (row,) = redis.xrange(GPU)
    assert row[1]["execution_id"] == left.id
    await cancel_execution(store, left.id)
    checks, _ = await check(store)
    assert checks["queues"] == {"ok": False, "unread": ["gpu"]}
    await run_rounds(reconciler)
    checks, _ = await check(store)
    assert checks["queues"] == {"ok": True, "unread": []}
    assert await store.tasks.queues.prune() == ["gpu"]


async def test_a_cancelled_execution_comes_to_its_finally_though_nobody_reads_the_queue(
    engine, store, reconciler
):
    execution = await engine.start(CLEANUP)
    await cancel_execution(store, execution.id)
    assert execution.state().status == "CANCELLING"
    await run_rounds(reconciler)
    worker = engine.worker()
    (z,) = await worker.take()
    await worker.complete(z)
    state = execution.state()
    assert (z.node_id, state.status, state.nodes["a"]) == ("z", "CANCELLED", "CANCELLED")


async def test_what_a_worker_was_given_or_may_still_run_is_left(engine, store, redis, reconciler):
    """A reader may have come behind the look at who reads, and what waits is not to go."""
    await engine.start(LONE)
    before = everything(redis)
    await run_rounds(reconciler, 2)
    assert everything(redis) == before

    execution, (_, a) = await engine.start_and_take(CLEANUP, engine.worker("w1", queues=("gpu",)))
    await cancel_execution(store, execution.id)
    assert await store.tasks.drop_ended([a]) == 0
    assert execution.state().status == "CANCELLING"
    assert redis.xpending(GPU, GROUP)["pending"] == len(redis.xrange(GPU)) == 2
