"""prune_queues.lua: a queue is forgotten when nobody needs it, and not before."""

from __future__ import annotations

import pytest

from flowd.scheduler.queues import PruneQueues
from flowd.store.redis import keys
from tests.store.engine import STREAM

GPU = keys.task_stream(STREAM, "gpu")
LONE = {"a": {"queue": "gpu"}}
LATER = {"a": [], "b": {"dependencies": ["a"], "queue": "gpu"}}


async def test_a_queue_that_nobody_reads_or_names_is_forgotten(engine, redis, lines):
    worker = engine.worker("w1", queues=("default", "gpu"))
    execution, entries = await engine.start_and_take(LONE, worker)
    assert await engine.store.tasks.queues.prune() == [], "its node runs"
    await worker.complete(*entries)
    assert await engine.store.tasks.queues.prune() == [], "a worker reads it"
    redis.xgroup_delconsumer(GPU, "workflow_group", "w1")

    await PruneQueues(engine.store).run(0.0)
    assert lines.of("queue.forgotten") == [("info", {"queue": "gpu"})]
    assert (redis.smembers(keys.QUEUES), redis.exists(GPU)) == (set(), 0)
    assert await engine.store.tasks.queues.prune() == []

    # Who names it again makes it again, and what is there is handed out.
    again, (a,) = await engine.start_and_take(LONE, engine.worker("w2", queues=("gpu",)))
    assert (a.queue, redis.smembers(keys.QUEUES)) == ("gpu", {"gpu"})
    assert execution.state().status == "COMPLETED" != again.state().status


@pytest.mark.parametrize("graph", [LONE, LATER])
async def test_a_queue_that_something_running_names_stays_though_it_is_empty(engine, redis, graph):
    worker = engine.worker("w1", queues=("default",))
    await engine.start_and_take(graph, worker)
    redis.xtrim(GPU, maxlen=0)
    assert await engine.store.tasks.queues.prune() == []
    assert redis.smembers(keys.QUEUES) == {"gpu"}


async def test_what_waits_in_a_queue_keeps_it(engine, redis):
    redis.sadd(keys.QUEUES, "gpu")
    redis.xadd(GPU, {"execution_id": "0" * 24, "node_id": "a"})
    assert await engine.store.tasks.queues.prune() == []
