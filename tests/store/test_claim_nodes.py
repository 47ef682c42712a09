"""Claiming: what runs longer than a call is recorded as RUNNING, with its owner."""

from __future__ import annotations

import pytest

from tests.store.engine import CHAIN, STREAM, State, everything


async def test_a_claimed_node_is_running_by_its_worker(engine):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)

    assert await worker.claim(entry) == ["claimed"]

    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "RUNNING", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3"},
        attempts={"a": "#1 runs on w1"},
        held={"w1": ["a#1"]},
    )


async def test_a_claim_sent_again_after_a_lost_reply_is_claimed_again(engine, redis):
    """The second claim was once stale, and the worker let go of a node that nobody else had."""
    worker = engine.worker()
    _, (entry,) = await engine.start_and_take(CHAIN, worker)
    await worker.claim(entry)
    before, written = everything(redis), changes(redis)

    assert await worker.claim(entry) == ["claimed"]

    assert everything(redis) == before
    # Every second each worker claims what runs on again; the disk need not hear of it.
    assert changes(redis) == written


def changes(redis):
    """How much has been written so far."""
    return redis.info("persistence")["rdb_changes_since_last_save"]


async def test_a_claim_of_a_node_that_was_requeued_is_stale(engine, redis):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await engine.store.tasks.requeue_entry(entry.name, "w1")
    before = everything(redis)

    assert await worker.claim(entry) == ["stale"]

    assert everything(redis) == before
    assert execution.state().queued == ["a#2"]


async def test_a_claim_of_a_node_that_another_worker_holds_is_stale(engine, redis):
    owner, other = engine.worker("w1"), engine.worker("w2")
    execution, (entry,) = await engine.start_and_take(CHAIN, owner)
    before = everything(redis)

    assert await other.claim(entry) == ["stale"]

    assert everything(redis) == before
    assert execution.state().held == {"w1": ["a#1"]}


async def test_a_claim_of_a_node_that_is_completed_is_stale(engine, redis):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await worker.complete(entry)
    before = everything(redis)

    assert await worker.claim(entry) == ["stale"]

    assert everything(redis) == before
    assert execution.state().nodes["a"] == "COMPLETED"


async def test_a_claim_in_an_execution_that_was_failed_ends_the_entry(engine, redis):
    """The entry once stayed in the stream, held by a worker that had let go of it."""
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await engine.store.executions.fail_execution(execution.id, "damaged")

    assert await worker.claim(entry) == ["ended"]

    assert execution.state() == State(
        status="FAILED",
        nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3", "error": "damaged", "finished_ms": "set"},
    )
    assert redis.xlen(STREAM) == 0


async def test_several_claims_in_one_call_are_judged_one_by_one(engine, redis):
    worker = engine.worker()
    taken = [await engine.start_and_take(CHAIN, worker) for _ in range(5)]
    executions = [execution for execution, _ in taken]
    entries = [entry for _, (entry,) in taken]
    await engine.store.tasks.requeue_entry(entries[1].name, "w1")
    await engine.store.executions.fail_execution(executions[2].id, "damaged")
    redis.delete(executions[3].key(":status"))
    redis.lpush(executions[3].key(":status"), "RUNNING")

    outcomes = await worker.claim(*entries)

    assert outcomes == ["claimed", "stale", "ended", "ended", "claimed"]
    states = [redis.get(execution.key(":node:a")) for execution in executions]
    assert states == ["RUNNING", "QUEUED", "QUEUED", "QUEUED", "RUNNING"]
    assert redis.xpending(STREAM, "workflow_group")["consumers"] == [
        {"name": "w1", "pending": 2},
    ]


@pytest.mark.parametrize("damage", ["missing", "no hash"])
async def test_a_claim_needs_no_record_of_attempts(engine, redis, damage):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    if damage == "no hash":
        redis.set(execution.key(":attempts"), "x")

    assert await worker.claim(entry) == ["claimed"]

    assert redis.get(execution.key(":node:a")) == "RUNNING"
    await worker.complete(entry)
    assert redis.get(execution.key(":node:b")) == "QUEUED"
