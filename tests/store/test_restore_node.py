"""Restoring: a node that has lost its entry gets a new one, unless it has moved on."""

from __future__ import annotations

import pytest

from flowd.errors import CorruptExecution
from flowd.store.redis import keys
from flowd.workflow.states import NodeState
from tests.store.engine import CHAIN, HOUR_MS, STREAM, State, everything
from tests.store.test_retry_node import later, retry

DATES = (keys.RETRIES, keys.ALARMS)


async def restore(engine, execution, state, record):
    return await engine.store.executions.restore_node(
        execution.id, "a", state=NodeState(state), record=record
    )


async def test_a_queued_node_without_an_entry_gets_one(engine, redis, outcomes):
    execution = await engine.start(CHAIN)
    redis.xtrim(STREAM, maxlen=0, approximate=False)

    assert await restore(engine, execution, "QUEUED", None)

    assert outcomes["restore_node"] == ["restored"]
    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3"},
        attempts={"a": "#2 queued"},
        queued=["a#2"],
    )
    ((_, fields),) = redis.xrange(STREAM)
    assert fields["plan"] == execution.plan.digest


async def test_a_running_node_without_an_entry_gets_its_next_attempt(engine, redis, outcomes):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await engine.store.tasks.requeue_entry(entry.name, "w1")
    (entry,) = await worker.take()
    await worker.claim(entry)
    record = redis.hget(execution.key(":attempts"), "a")
    redis.xdel(STREAM, entry.name)

    assert await restore(engine, execution, "RUNNING", record)

    assert outcomes["restore_node"] == ["restored"]
    state = execution.state()
    assert (state.nodes["a"], state.queued) == ("QUEUED", ["a#3"])
    assert state.attempts == {"a": "#3 queued"}


async def test_a_restoration_sent_again_does_nothing(engine, redis, outcomes):
    execution = await engine.start(CHAIN)
    redis.xtrim(STREAM, maxlen=0, approximate=False)
    await restore(engine, execution, "QUEUED", None)
    before = everything(redis)

    assert not await restore(engine, execution, "QUEUED", None)

    assert outcomes["restore_node"] == ["restored", "moved"]
    assert everything(redis) == before


@pytest.mark.parametrize(
    ("state", "record"),
    [("RUNNING", None), ("QUEUED", "1 5 - - -"), ("QUEUED", "2 5 - - -")],
    ids=["other state", "other record", "later record"],
)
async def test_a_node_that_has_moved_on_is_left_alone(engine, redis, outcomes, state, record):
    execution = await engine.start(CHAIN)
    before = everything(redis)

    assert not await restore(engine, execution, state, record)

    assert outcomes["restore_node"] == ["moved"]
    assert everything(redis) == before


@pytest.mark.parametrize(
    "change",
    [
        lambda redis, key: redis.set(key(":status"), "FAILED"),
        lambda redis, key: redis.delete(key(":status")),
        lambda redis, key: (redis.delete(key(":node:a")), redis.lpush(key(":node:a"), "QUEUED")),
        lambda redis, key: redis.set(key(":attempts"), "x"),
    ],
    ids=["ended", "gone", "node no string", "attempts no hash"],
)
async def test_what_makes_no_sense_is_left_alone(engine, redis, outcomes, change):
    execution = await engine.start(CHAIN)
    change(redis, execution.key)
    before = everything(redis)

    assert not await restore(engine, execution, "QUEUED", None)

    assert outcomes["restore_node"] == ["moved"]
    assert everything(redis) == before


async def test_a_run_key_of_another_type_does_not_keep_a_node_from_its_entry(engine, redis):
    execution = await engine.start(CHAIN)
    redis.xtrim(STREAM, maxlen=0, approximate=False)
    redis.delete(execution.key(":run"))
    redis.set(execution.key(":run"), "x")

    assert await restore(engine, execution, "QUEUED", None)

    ((_, fields),) = redis.xrange(STREAM)
    assert (fields["node_id"], fields["attempt"], fields["plan"]) == ("a", "2", "")


@pytest.mark.parametrize("record", ["x 5 - - -", " ", "-"])
async def test_a_record_flowd_did_not_write_is_a_corrupt_execution(engine, redis, record):
    execution = await engine.start(CHAIN)
    redis.hset(execution.key(":attempts"), "a", record)
    before = everything(redis)

    with pytest.raises(CorruptExecution):
        await restore(engine, execution, "QUEUED", record)

    assert everything(redis) == before


async def test_a_retrying_node_without_a_date_gets_one(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(a))
    redis.delete(keys.RETRIES)
    record = redis.hget(execution.key(":attempts"), "a")

    assert await restore(engine, execution, "RETRYING", record)
    assert execution.state().waiting == ["a"]


async def test_a_retrying_node_that_is_kept_by_a_pause_is_left_alone(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(a, pause_ms=0))
    await engine.store.lifecycle.pause_execution(execution.id)
    await engine.store.retries.dispatch()
    record = redis.hget(execution.key(":attempts"), "a")

    assert not await restore(engine, execution, "RETRYING", record)
    assert (execution.state().waiting, execution.state().parked) == ([], {"a": "0"})


@pytest.mark.parametrize("waker", ["date", "moment", "signal"])
async def test_a_waiting_node_that_lost_its_date_gets_the_same_again(engine, redis, waker):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, waker, due_ms=HOUR_MS)
    dates = {name: redis.zrange(name, 0, -1, withscores=True) for name in DATES}
    redis.delete(*DATES)

    assert await restore(engine, execution, "WAITING", redis.hget(execution.key(":attempts"), "a"))

    assert {name: redis.zrange(name, 0, -1, withscores=True) for name in DATES} == dates
    assert execution.state().nodes["a"] == "WAITING"


@pytest.mark.parametrize("record", [None, "nonsense"])
async def test_a_waiting_node_that_nothing_would_wake_begins_anew(engine, redis, record):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, "signal")
    redis.hdel(execution.key(":waits"), "a")
    if record:
        redis.hset(execution.key(":waits"), "a", record)

    assert await restore(engine, execution, "WAITING", redis.hget(execution.key(":attempts"), "a"))

    state = execution.state()
    assert (state.nodes["a"], state.waits, state.queued) == ("QUEUED", {}, ["a#2"])


async def test_a_waiting_node_that_is_decided_is_put_back(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, "signal", due_ms=HOUR_MS)
    redis.hset(execution.key(":decisions"), "a", "1 signal 1 {}")

    assert await restore(engine, execution, "WAITING", redis.hget(execution.key(":attempts"), "a"))

    state = execution.state()
    assert (state.waiting, state.waits, state.queued) == ([], {}, ["a#2"])
