"""What happens when the group, the stream or everything is gone in the middle of the work."""

from __future__ import annotations

import asyncio

import pytest

from flowd.errors import MissingGroup, UnknownExecution
from flowd.orchestrator.recovery import ensure_groups, recover_orphans
from flowd.store.redis import keys
from tests.store.engine import (
    CHAIN,
    DIAMOND,
    GROUP,
    STREAM,
    State,
    everything,
    outputs_of,
    until_blocked,
)


async def test_a_group_is_made_once(engine, redis):
    assert await engine.store.tasks.queues.ensure_groups()
    assert not await engine.store.tasks.queues.ensure_groups()
    assert redis.xlen(STREAM) == 0


async def test_a_group_made_on_an_empty_server_hands_out_what_comes_first(engine):
    await engine.store.tasks.queues.ensure_groups()
    execution = await engine.start(CHAIN)

    await engine.worker().take()

    assert execution.state().held == {"w1": ["a#1"]}


async def test_nodes_of_a_destroyed_group_get_new_attempts_and_late_commits_are_refused(
    engine, redis, plans
):
    late, successor = engine.worker("w1"), engine.worker("w2")
    running, (x,) = await engine.start_and_take(DIAMOND, late)
    await late.claim(x)
    taken, (y,) = await engine.start_and_take(CHAIN, late)
    waiting = await engine.start(CHAIN)
    redis.xgroup_destroy(STREAM, GROUP)
    during = await engine.start(CHAIN)

    await ensure_groups(engine.store, plans)

    for execution in (running, taken, waiting, during):
        state = execution.state()
        assert (state.nodes["a"], state.queued) == ("QUEUED", ["a#2"])
        assert (state.held, state.orphaned) == ({}, [])
        assert state.attempts == {"a": "#2 queued"}
    assert await late.complete(x, y) == ["stale", "stale"]
    assert await late.fail(x) == "stale"
    assert await late.claim(y) == ["stale"]
    await engine.finish(successor)
    assert {one.state().status for one in (running, taken, waiting, during)} == {"COMPLETED"}
    assert running.state().attempts["a"] == "#2 ended on w2"
    assert redis.xlen(STREAM) == 0


async def test_a_node_that_was_queued_while_the_group_was_away_is_not_lost(engine, redis, plans):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.complete(a)
    redis.xgroup_destroy(STREAM, GROUP)

    await ensure_groups(engine.store, plans)

    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "COMPLETED", "b": "QUEUED", "c": "PENDING"},
        counters={"remaining": "2"},
        outputs=outputs_of("a"),
        attempts={"a": "#1 ended on w1", "b": "#2 queued"},
        queued=["b#2"],
    )


async def test_the_death_of_a_group_counts_against_no_node(engine, redis, plans):
    worker = engine.worker()
    execution = await engine.start(CHAIN)
    for _ in range(5):
        (entry,) = await worker.take()
        await worker.claim(entry)
        redis.xgroup_destroy(STREAM, GROUP)
        await ensure_groups(engine.store, plans)

    assert execution.state().queued == ["a#6"]


async def test_orphans_are_not_sought_among_what_is_held_or_waits(engine, redis, plans):
    worker = engine.worker()
    held, _ = await engine.start_and_take(CHAIN, worker)
    waiting = await engine.start(CHAIN)
    before = everything(redis)

    await recover_orphans(engine.store, plans)

    assert everything(redis) == before
    assert (held.state().held, waiting.state().queued) == ({"w1": ["a#1"]}, ["a#1"])


async def test_an_entry_acknowledged_by_hand_is_an_orphan_too(engine, redis, plans):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    redis.xack(STREAM, GROUP, a.name)
    assert execution.state().orphaned == ["a#1"]

    await recover_orphans(engine.store, plans)

    assert execution.state().queued == ["a#2"]
    assert await worker.complete(a) == ["stale"]


async def test_a_garbage_orphan_is_buried(engine, redis, plans):
    await engine.store.tasks.queues.ensure_groups()
    redis.xadd(STREAM, {"x": "y"})
    await engine.worker().exchange(read_max=1)
    redis.xgroup_destroy(STREAM, GROUP)

    await ensure_groups(engine.store, plans)
    await recover_orphans(engine.store, plans)

    assert redis.xlen(STREAM) == 0
    ((_, letter),) = redis.xrange(keys.DEAD_LETTERS)
    assert "execution_id" in letter["reason"]


async def test_many_orphans_are_all_recovered(engine, redis, plans):
    execution = await engine.start({f"r{number}": [] for number in range(450)})
    await engine.worker().take(333)
    redis.xgroup_destroy(STREAM, GROUP)

    await ensure_groups(engine.store, plans)

    state = execution.state()
    assert state.queued == [f"r{number}#2" for number in range(450)]
    assert state.orphaned == []


async def test_after_flushall_late_commits_are_refused_and_new_work_goes_on(engine, redis, plans):
    late = engine.worker("w1")
    old, (a, x) = await engine.start_and_take({"a": [], "x": [], "b": ["a"]}, late)
    await engine.store.tasks.enroll_worker("w1", b"{}")
    redis.flushall()

    exchange = await late.exchange(
        [late.completion(a)], [late.failure(x)], [late.start(x)], read_max=8
    )
    assert (exchange.completed, exchange.failed, exchange.claimed) == (
        ["stale"],
        ["stale"],
        ["stale"],
    )
    assert exchange.is_group_missing
    assert everything(redis) == {}
    assert not await engine.store.tasks.renew_lease("w1")
    for ask in (engine.store.executions.execution_status, engine.store.executions.trigger_workflow):
        with pytest.raises(UnknownExecution):
            await ask(old.id)

    await ensure_groups(engine.store, plans)
    new, (entry,) = await engine.start_and_take({"a": []}, late)
    assert await late.complete(entry) == ["finished"]
    assert await late.complete(a) == ["stale"]
    assert new.state().status == "COMPLETED"
    assert redis.get(old.key(":node:a")) is None


async def test_a_trigger_after_flushall_makes_the_group_by_itself(engine, redis):
    await engine.start(CHAIN)
    redis.flushall()
    execution = await engine.start(CHAIN)

    await engine.worker().take()

    assert execution.state().held == {"w1": ["a#1"]}


@pytest.mark.parametrize(
    "destroy",
    [
        lambda redis: redis.flushall(),
        lambda redis: redis.delete(STREAM),
        lambda redis: redis.xgroup_destroy(STREAM, GROUP),
    ],
    ids=["flushall", "stream deleted", "group destroyed"],
)
async def test_a_waiting_worker_is_told_that_its_group_is_gone(engine, redis, destroy):
    """Redis 7.0 says so in other words than its successors."""
    await engine.store.tasks.queues.ensure_groups()
    bell = asyncio.create_task(engine.worker().session.wait_for_entry())
    await until_blocked(redis)

    destroy(redis)

    with pytest.raises(MissingGroup):
        await bell


async def test_whoever_looks_after_the_group_is_told_that_it_is_gone(engine, redis):
    tasks = engine.store.tasks
    for is_stream_there in (False, True):
        if is_stream_there:
            redis.xadd(STREAM, {"x": "y"})
        for ask in (
            tasks.leases,
            lambda: tasks.pending("w1"),
            lambda: tasks.retire_worker("w1"),
            engine.worker().session.own_entries,
        ):
            with pytest.raises(MissingGroup):
                await ask()
