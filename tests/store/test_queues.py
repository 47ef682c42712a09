"""A node stays in its queue: however it is opened, and by whatever way it comes back."""

from __future__ import annotations

import pytest

from flowd.config import readers
from flowd.scheduler.reconciler import Reconciler
from flowd.store.endings import RetryLater
from flowd.store.redis import keys
from flowd.workflow.ids import DEFAULT_QUEUE, is_name
from tests.store.engine import GROUP, STREAM, failed_by, outputs_of

GPU = keys.task_stream(STREAM, "gpu")
# The first and the last are in the default queue, as those are that say nothing.
DIAMOND = {
    "a": [],
    "b": {"dependencies": ["a"], "queue": "gpu"},
    "c": {"dependencies": ["a"], "queue": "low"},
    "d": {"dependencies": ["b", "c"], "queue": "gpu"},
    "e": ["d"],
}
LONE = {"a": {"queue": "gpu"}}


def reader(engine, name="w1"):
    return engine.worker(name, queues=("default", "gpu", "low"))


async def test_dependents_are_opened_in_their_queues(engine):
    worker = reader(engine)
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)
    assert a.queue == DEFAULT_QUEUE

    assert await worker.complete(a) == ["completed"]
    assert sorted(execution.state().queued) == ["gpu/b#1", "low/c#1"]

    assert await worker.complete(*await worker.take()) == ["completed", "completed"]
    state = execution.state()
    assert state.queued == ["gpu/d#1"]
    assert state.counters["arrived:d"] == "2"
    assert (state.counters["queues"], state.counters["queue:d"]) == ("gpu low", "gpu")

    await engine.finish(worker)
    assert execution.state_of("e") == "COMPLETED"
    assert execution.state().status == "COMPLETED"


async def test_a_definition_without_queues_says_nothing_of_them(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], "b": ["a"]}, worker)
    await worker.complete(a)

    assert not {one for one in execution.state().counters if one.startswith("queue")}
    assert not redis.exists(keys.QUEUES)


async def test_the_queues_of_an_execution_are_known_and_have_a_group_once_it_is_triggered(
    engine, redis
):
    await engine.start(DIAMOND)

    assert redis.smembers(keys.QUEUES) == {"gpu", "low"}
    assert [group["name"] for group in redis.xinfo_groups(GPU)] == [GROUP]


async def test_a_key_in_the_place_of_the_stream_stops_the_trigger_before_anything_is_written(
    engine, redis
):
    redis.set(GPU, "mine")
    execution = await engine.submit(LONE)
    with pytest.raises(Exception, match="WRONGTYPE"):
        await engine.store.executions.trigger_workflow(execution.id)
    assert execution.state().status == "PENDING"
    assert await engine.store.tasks.queues.known() == [DEFAULT_QUEUE]


async def retried(engine, worker, entry):
    later = RetryLater(entry, "1 1 1 1 w1", 0, 1, "boom")
    assert (await worker.exchange(failures=[later])).failed == ["retrying"]
    await engine.store.retries.dispatch()


async def requeued(engine, worker, entry):
    assert (await engine.store.tasks.requeue_entry(entry.name, worker.name))[0] == "requeued"


async def woken(engine, worker, entry):
    assert await worker.wait(entry, "signal") == "waiting"
    await engine.store.tasks.waits.wake(entry.execution_id, entry.node_id, "signal", "{}")


async def resumed(engine, _worker, entry):
    await engine.store.lifecycle.pause_execution(entry.execution_id)
    assert await engine.store.lifecycle.park_node(entry) == "parked"
    await engine.store.lifecycle.resume_execution(entry.execution_id)


async def restored(engine, worker, entry):
    await worker.claim(entry)
    await engine.store.tasks.bury_entry(entry.name, "lost")
    record = (await engine.store.executions.attempts(entry.execution_id, [entry.node_id]))[0]
    assert await engine.store.executions.restore_node(
        entry.execution_id, entry.node_id, state="RUNNING", record=record
    )


WAYS = (retried, requeued, woken, resumed, restored)


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_back_keeps_the_queue(engine, way):
    worker = reader(engine)
    execution, (a,) = await engine.start_and_take(LONE, worker)

    await way(engine, worker, a)

    (again,) = execution.state().queued
    assert again.startswith("gpu/a#2")
    await engine.finish(worker)
    assert execution.state().status == "COMPLETED"


async def test_who_looks_at_a_failure_is_opened_in_its_queue(engine):
    worker = reader(engine)
    graph = {"a": [], "b": {"dependencies": ["a"], "after": "failed", "queue": "gpu"}}
    execution, (a,) = await engine.start_and_take(graph, worker)

    await worker.fail(a)

    assert execution.state().queued == ["gpu/b#1"]


async def test_a_failure_takes_along_what_is_in_another_queue(engine):
    worker = reader(engine)
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)

    assert await worker.fail(a) == "finished"

    state = execution.state()
    assert state.outputs == {"a": {"error": "boom"}, **failed_by("a", "b", "c", "d", "e")}
    assert (state.status, state.queued) == ("FAILED", [])


async def test_the_finally_of_an_execution_is_opened_in_its_queue(engine):
    worker = reader(engine)
    graph = {"a": [], "z": {"finally": True, "queue": "gpu"}}
    execution, (a,) = await engine.start_and_take(graph, worker)

    await worker.complete(a)

    assert execution.state().queued == ["gpu/z#1"]
    await engine.finish(worker)
    assert execution.state().outputs == outputs_of("a", "z")


async def test_a_pause_and_a_cancel_know_of_what_stands_in_any_queue(engine, redis):
    """Else a worker would start what was queued before without asking."""
    worker = reader(engine)
    execution = await engine.start(LONE)
    ((entry_id, _),) = redis.xrange(GPU)
    await engine.store.lifecycle.pause_execution(execution.id)
    assert int(redis.get(keys.HALTED)) >= int(entry_id.partition("-")[0])
    assert len(await worker.take()) == 1


async def test_what_is_in_any_queue_is_found_by_those_who_look_for_what_is_lost(engine, plans):
    worker = reader(engine)
    execution, (a,) = await engine.start_and_take(LONE, worker)
    reconciler = Reconciler(engine.store, plans)
    for _ in range(4):
        await reconciler.run_slice()
    assert execution.state().held == {"w1": ["gpu/a#1"]}
    assert await worker.complete(a) == ["finished"]


async def test_a_group_that_was_destroyed_is_made_anew_in_every_queue(engine, redis):
    await engine.start(LONE)
    redis.xgroup_destroy(GPU, GROUP)
    assert await engine.store.tasks.queues.ensure_groups() == ["gpu"]
    assert await engine.store.tasks.queues.ensure_groups() == []


@pytest.mark.parametrize("name", ["gpu", "a.b-c_1", "-a", ".a", "", "a/b", "a:b", "a b", "x" * 101])
def test_the_settings_take_the_names_that_workflows_take(name):
    try:
        taken = readers.queues([name])
    except ValueError:
        taken = ()
    assert bool(taken) == is_name(name)
