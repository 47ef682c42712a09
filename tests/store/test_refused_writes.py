"""A server at its memory limit, and one that is a read-only replica: refused means not begun."""

from __future__ import annotations

import pytest

from flowd.errors import StoreFull, StoreReadOnly
from flowd.orchestrator.executor import advance_node, fail_downstream
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.redis import keys
from tests.store.engine import (
    CHAIN,
    DIAMOND,
    GROUP,
    STREAM,
    State,
    as_replica,
    configured,
    everything,
    fan,
    outputs_of,
)

WIDTH = DEPENDENTS_PER_CALL_MAX + 100


def full(redis):
    """The server with its memory limit reached."""
    return configured(redis, maxmemory=1)


@pytest.mark.parametrize("graph", [DIAMOND, fan(1_500)], ids=["small", "staged"])
async def test_a_full_server_takes_no_new_workflow(engine, redis, graph):
    with full(redis), pytest.raises(StoreFull, match="maxmemory"):
        await engine.submit(graph)

    assert everything(redis) == {}


async def test_a_server_that_fills_up_during_a_submission_keeps_no_half_of_it(
    engine, redis, monkeypatch
):
    stage = engine.store.submissions._stage

    async def fill_up_behind(*arguments):
        outcome = await stage(*arguments)
        redis.config_set("maxmemory", 1)
        return outcome

    monkeypatch.setattr(engine.store.submissions, "_stage", fill_up_behind)
    with configured(redis, maxmemory=0):
        with pytest.raises(StoreFull):
            await engine.submit(fan(1_500))
        ((_, execution_id),) = [one.split(" ") for one in redis.zrange(keys.CONTINUATIONS, 0, -1)]
        assert not redis.exists(keys.status(execution_id))

        # Making room has to work without any.
        await engine.store.submissions.discard_staged(execution_id)

    assert everything(redis) == {}


async def test_a_full_server_starts_nothing(engine, redis):
    execution = await engine.submit(DIAMOND)
    before = everything(redis)

    with full(redis), pytest.raises(StoreFull):
        await engine.store.executions.trigger_workflow(execution.id)

    assert everything(redis) == before
    assert await engine.store.executions.trigger_workflow(execution.id) == "triggered"


async def test_what_runs_on_a_full_server_still_commits_to_the_end(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)
    failing, (x,) = await engine.start_and_take(CHAIN, worker)

    with full(redis):
        assert await worker.claim(a, x) == ["claimed", "claimed"]
        exchange = await worker.exchange([worker.completion(a)], [worker.failure(x)], read_max=8)
        assert (exchange.completed, exchange.failed) == (["completed"], ["finished"])
        # A script that the server does not have yet is called again, behind the read.
        entries = exchange.entries or await worker.take()
        assert await worker.complete(*entries) == ["completed", "completed"]
        assert await worker.complete(*await worker.take()) == ["finished"]

    assert execution.state() == State(
        status="COMPLETED",
        nodes=dict.fromkeys("abcd", "COMPLETED"),
        counters={"remaining": "0", "arrived:d": "2", "finished_ms": "set"},
        outputs=outputs_of(*"abcd"),
        attempts=dict.fromkeys("abcd", "#1 ended on w1"),
    )
    assert failing.state().status == "FAILED"
    assert redis.xlen(STREAM) == 0


async def test_what_was_left_for_later_is_ended_on_a_full_server(engine, redis):
    worker = engine.worker()
    execution, (first,) = await engine.start_and_take(fan(WIDTH), worker)
    failing, (other,) = await engine.start_and_take(fan(WIDTH), worker)

    with full(redis):
        await worker.complete(first)
        await worker.fail(other)
        await advance_node(engine.store, execution.plan, execution.id, "first")
        await fail_downstream(engine.store, failing.plan, failing.id, "first")

    assert execution.states() == {"COMPLETED": 1, "QUEUED": WIDTH, "PENDING": 1}
    assert failing.state().status == "FAILED"


async def test_a_full_server_is_looked_after_as_ever(engine, redis):
    worker = engine.worker()
    await engine.store.tasks.enroll_worker("w1", b"{}")
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    redis.xadd(STREAM, {"x": "y"})
    (garbage,) = (await worker.exchange(read_max=1)).entries

    with full(redis):
        assert await engine.store.tasks.renew_lease("w1")
        assert (await engine.store.tasks.requeue_entry(a.name, "w1"))[0] == "requeued"
        await engine.store.tasks.bury_entry(garbage.name, "makes no sense")
        assert await engine.store.tasks.retire_worker("w1")
        assert await engine.store.executions.execution_status(execution.id) == "RUNNING"
        assert await engine.store.executions.fail_execution(execution.id, "enough")

    assert execution.state().status == "FAILED"
    assert redis.xlen(keys.DEAD_LETTERS) == 1


async def test_a_group_that_is_there_is_found_on_a_full_server(engine, redis):
    """Making it was refused there, so that a worker whose connection broke waited for room, and did
    not commit what it ran."""
    await engine.store.tasks.queues.ensure_groups()

    with full(redis):
        assert not await engine.store.tasks.queues.ensure_groups()
        redis.xgroup_destroy(STREAM, GROUP)
        with pytest.raises(StoreFull):
            await engine.store.tasks.queues.ensure_groups()


async def test_a_replica_refuses_every_write_and_then_also_to_be_read(engine, redis):
    """What it has may be old: the connection is dropped, and made anew only to a primary."""
    worker = engine.worker()
    await engine.store.tasks.enroll_worker("w1", b"{}")
    pending = await engine.submit(DIAMOND)
    execution, (a, b) = await engine.start_and_take({"a": [], "b": [], "c": ["a"]}, worker)
    before = everything(redis)
    executions, tasks = engine.store.executions, engine.store.tasks

    with as_replica(redis):
        for write in (
            lambda: engine.submit(DIAMOND),
            lambda: engine.submit(fan(1_500)),
            lambda: executions.trigger_workflow(pending.id),
            lambda: executions.fail_execution(execution.id, "x"),
            lambda: worker.complete(a),
            lambda: worker.skip(a),
            lambda: worker.fail(a),
            lambda: worker.claim(a),
            lambda: worker.take(),
            lambda: worker.exchange([worker.completion(a)], [worker.failure(b)], read_max=4),
            lambda: worker.session.wait_for_entry(),
            lambda: tasks.requeue_entry(a.name, "w1"),
            lambda: tasks.bury_entry(a.name, "x"),
            lambda: tasks.renew_lease("w1"),
            lambda: tasks.revoke_lease("w1"),
            lambda: tasks.enroll_worker("w2", b"{}"),
            lambda: tasks.retire_worker("w2"),
        ):
            with pytest.raises(StoreReadOnly, match="primary"):
                await write()
        for read in (
            lambda: executions.execution_status(execution.id),
            lambda: executions.node_states(execution.id),
            lambda: tasks.leases(),
        ):
            with pytest.raises(StoreReadOnly, match="primary"):
                await read()

    assert everything(redis) == before
    assert await executions.execution_status(execution.id) == "RUNNING"
    assert await worker.complete(a, b) == ["completed", "completed"]
