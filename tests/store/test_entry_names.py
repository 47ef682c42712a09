"""The fence knows the queue: an id is one entry's in one stream, and another's in the next."""

from __future__ import annotations

import random

import pytest

from flowd.orchestrator.recovery import recover_worker
from flowd.store.endings import RetryLater
from flowd.store.entries import Entry
from flowd.store.redis import keys
from tests.store.engine import CHAIN, GROUP, STREAM, Execution

QUEUES = ("default", "gpu")
GPU = keys.task_stream(STREAM, "gpu")


async def twins(engine, redis, worker) -> dict[str, tuple[Execution, Entry]]:
    """Two executions whose entries have one id, in two streams; both are the worker's."""
    await engine.store.tasks.queues.ensure_groups(QUEUES)
    here, there = await engine.start(CHAIN), await engine.start(CHAIN)
    (mine, _), (other, fields) = redis.xrange(STREAM)[-2:]
    redis.xdel(STREAM, other)
    redis.xadd(GPU, fields, id=mine)
    entries = await worker.take()
    assert [entry.name for entry in entries] == [mine, f"gpu/{mine}"]
    return {
        queue: (execution, entry)
        for queue, execution, entry in zip(QUEUES, (here, there), entries, strict=True)
    }


async def complete(_engine, worker, entry):
    assert (await worker.complete(entry))[0] == "completed"


async def skip(_engine, worker, entry):
    await worker.skip(entry)


async def fail(_engine, worker, entry):
    assert await worker.fail(entry) == "finished"


async def retry(_engine, worker, entry):
    later = RetryLater(entry, "1 1 1 1 w1", 3_600_000, 1, "boom")
    assert (await worker.exchange(failures=[later])).failed == ["retrying"]


async def wait(_engine, worker, entry):
    assert await worker.wait(entry) == "waiting"


async def claim(_engine, worker, entry):
    assert await worker.claim(entry) == ["claimed"]


async def requeue(engine, worker, entry):
    assert (await engine.store.tasks.requeue_entry(entry.name, worker.name))[0] == "requeued"


async def bury(engine, _worker, entry):
    await engine.store.tasks.bury_entry(entry.name, "for no reason")


async def park(engine, _worker, entry):
    await engine.store.lifecycle.pause_execution(entry.execution_id)
    assert await engine.store.lifecycle.park_node(entry) == "parked"


DEEDS = (complete, skip, fail, retry, wait, claim, requeue, bury, park)


@pytest.mark.parametrize("queue", QUEUES)
@pytest.mark.parametrize("deed", DEEDS)
async def test_what_is_done_to_an_entry_leaves_its_twin_alone(engine, redis, deed, queue):
    worker = engine.worker(queues=QUEUES)
    both = await twins(engine, redis, worker)
    _, entry = both.pop(queue)
    ((twin, its_entry),) = both.values()
    before = twin.state()

    await deed(engine, worker, entry)

    assert twin.state() == before
    assert await worker.complete(its_entry) == ["completed"]


@pytest.mark.parametrize("seed", range(12))
async def test_twins_go_their_ways_whatever_is_done_to_them(engine, redis, seed):
    """Several pairs, and one deed after the other in any order: each changes its own entry only,
    once, and what is said of an entry that has gone is stale."""
    chance = random.Random(seed)
    worker = engine.worker(queues=QUEUES)
    pairs = []
    for _ in range(3):
        pairs += (await twins(engine, redis, worker)).values()
    chance.shuffle(pairs)
    for at, (_, entry) in enumerate(pairs):
        others = [one for one, _ in pairs[:at] + pairs[at + 1 :]]
        before = [one.state() for one in others]

        await chance.choice([one for one in DEEDS if one is not claim])(engine, worker, entry)

        assert [one.state() for one in others] == before
        assert await worker.complete(entry) == ["stale"]
        assert await worker.claim(entry) == ["stale"]


async def test_a_batch_of_twins_ends_both(engine, redis):
    worker = engine.worker(queues=QUEUES)
    both = await twins(engine, redis, worker)

    outcomes = await worker.complete(*(entry for _, entry in both.values()))

    assert outcomes == ["completed", "completed"]
    assert all(execution.state().nodes["a"] == "COMPLETED" for execution, _ in both.values())


@pytest.mark.parametrize("queue", QUEUES)
async def test_the_death_of_a_worker_is_counted_against_the_suspect_and_not_its_twin(
    engine, plans, redis, queue
):
    worker = engine.worker(queues=QUEUES)
    both = await twins(engine, redis, worker)
    execution, entry = both.pop(queue)
    ((twin, _),) = both.values()

    requeued = await recover_worker(
        engine.store, plans, worker.name, "killed", is_blamed=True, suspects=[entry.name]
    )

    assert requeued == 2
    assert [one.rpartition("/")[2] for one in execution.state().queued] == ["a#2 after 1 deaths"]
    assert [one.rpartition("/")[2] for one in twin.state().queued] == ["a#2"]
    assert not redis.xpending(GPU, GROUP)["pending"]


async def test_a_consumer_is_not_forgotten_while_it_holds_an_entry_of_any_queue(engine, redis):
    worker = engine.worker(queues=QUEUES)
    both = await twins(engine, redis, worker)
    _, entry = both["default"]
    await worker.complete(entry)

    assert not await engine.store.tasks.retire_worker(worker.name)
    assert await engine.store.tasks.pending(worker.name) == [both["gpu"][1].name]
