"""Triggering: the roots are queued, once."""

from __future__ import annotations

import contextlib

import pytest

from flowd.errors import CorruptExecution, UnknownExecution
from flowd.orchestrator.executor import trigger_workflow
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.redis import keys
from flowd.workflow.concurrency import LimitReached
from tests.store.engine import DIAMOND, GROUP, STREAM, State, everything

AN_ID = "0123456789ab0123456789ab"
TWO_ROOTS = {"a": [], "b": [], "c": ["a", "b"]}


def roots(count):
    return {f"r{number}": [] for number in range(count)}


async def test_a_triggered_execution_runs_with_its_roots_queued(engine, redis, outcomes):
    execution = await engine.start(TWO_ROOTS)

    assert outcomes["trigger_workflow"] == ["triggered"]
    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "QUEUED", "b": "QUEUED", "c": "PENDING"},
        counters={"remaining": "3"},
        queued=["a#1", "b#1"],
    )
    assert redis.hexists(execution.key(":run"), "triggered_ms")
    assert [fields for _, fields in redis.xrange(STREAM)] == [
        {
            "execution_id": execution.id,
            "node_id": node_id,
            "attempt": "1",
            "plan": execution.plan.digest,
        }
        for node_id in ("a", "b")
    ]


async def test_the_first_trigger_makes_the_group_at_the_beginning_of_the_stream(engine, redis):
    await engine.start(DIAMOND)

    (group,) = redis.xinfo_groups(STREAM)
    assert (group["name"], group["last-delivered-id"]) == (GROUP, "0-0")


async def test_an_unknown_execution_cannot_be_triggered(engine, redis, outcomes):
    with pytest.raises(UnknownExecution):
        await engine.store.executions.trigger_workflow(AN_ID)

    assert outcomes["trigger_workflow"] == ["unknown"]
    assert everything(redis) == {}


async def test_a_trigger_does_not_wake_what_was_paused_or_cancelled(engine, store, outcomes):
    execution = await engine.start(DIAMOND)
    await store.lifecycle.pause_execution(execution.id)
    await store.executions.trigger_workflow(execution.id)
    await store.lifecycle.cancel_execution(execution.id)
    await store.executions.trigger_workflow(execution.id)

    assert outcomes["trigger_workflow"] == ["triggered", "PAUSED", "CANCELLED"]


async def test_the_input_is_that_of_the_first_trigger(engine, store, redis):
    execution = await engine.submit(DIAMOND)
    await store.executions.trigger_workflow(execution.id, b'{"x":1}')
    await store.executions.trigger_workflow(execution.id, b'{"x":2}')

    assert redis.get(keys.given_input(execution.id)) == '{"x":1}'


async def test_an_input_that_a_schema_is_for_is_checked_before_anything_is_written(
    engine, store, redis, outcomes
):
    execution = await engine.submit(DIAMOND)
    redis.hset(execution.key(":run"), "input_schema", "1")
    before = everything(redis)

    assert await store.executions.trigger_workflow(execution.id, is_checked=False) == "unchecked"
    assert everything(redis) == before
    assert await store.executions.trigger_workflow(execution.id) == "triggered"
    # It has started, and is not asked about any more.
    assert await store.executions.trigger_workflow(execution.id, is_checked=False) == "RUNNING"

    assert outcomes["trigger_workflow"] == ["unchecked", "triggered", "RUNNING"]


async def test_without_a_free_place_it_waits_is_refused_or_replaces(engine, store, outcomes):
    for when_full in ("queue", "refuse", "replace"):
        said = {"concurrency": {"when_full": when_full}, "name": when_full}
        first, second = [await engine.submit({"a": []}, **said) for _ in "12"]
        await trigger_workflow(store, first.id)
        with contextlib.suppress(LimitReached):
            await trigger_workflow(store, second.id)

    queue, refuse, replace = (outcomes["trigger_workflow"][at : at + 4] for at in (0, 4, 8))
    assert queue == ["unchecked", "triggered", "unchecked", "waiting"]
    assert refuse == ["unchecked", "triggered", "unchecked", "refused"]
    assert replace == ["unchecked", "triggered", "unchecked", " ".join(["replaced", first.id])]


async def test_a_second_trigger_changes_nothing(engine, redis, outcomes):
    execution = await engine.start(DIAMOND)
    before = everything(redis)

    assert await engine.store.executions.trigger_workflow(execution.id) == "RUNNING"

    assert outcomes["trigger_workflow"] == ["triggered", "RUNNING"]
    assert everything(redis) == before


@pytest.mark.parametrize("ending", ["COMPLETED", "FAILED"])
async def test_an_execution_that_has_ended_stays_so_when_triggered_again(
    engine, redis, outcomes, ending
):
    worker = engine.worker()
    _, (entry,) = await engine.start_and_take({"a": []}, worker)
    await (worker.complete(entry) if ending == "COMPLETED" else worker.fail(entry))
    before = everything(redis)

    assert await engine.store.executions.trigger_workflow(entry.execution_id) == ending

    assert outcomes["trigger_workflow"][1] in ("COMPLETED", "FAILED")
    assert everything(redis) == before


async def test_more_roots_than_one_call_opens_are_left_to_advance_node(engine, redis, outcomes):
    count = DEPENDENTS_PER_CALL_MAX + 1
    execution = await engine.submit(roots(count))

    assert await engine.store.executions.trigger_workflow(execution.id) == "continue"

    assert outcomes["trigger_workflow"] == ["continue"]
    assert execution.states() == {"PENDING": count}
    state = execution.state()
    assert (state.status, state.queued, state.is_active) == ("RUNNING", [], True)
    assert state.continuations == ["advance"]
    assert redis.xinfo_groups(STREAM)[0]["last-delivered-id"] == "0-0"


@pytest.mark.parametrize("count", [DEPENDENTS_PER_CALL_MAX, 2 * DEPENDENTS_PER_CALL_MAX + 201])
async def test_any_number_of_roots_is_queued_once(engine, count):
    execution = await engine.submit(roots(count))

    await trigger_workflow(engine.store, execution.id)

    assert execution.states() == {"QUEUED": count}
    state = execution.state()
    assert state.queued == [f"r{number}#1" for number in range(count)]
    assert (state.counters, state.continuations) == ({"remaining": str(count)}, [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda redis, key: redis.set(key(":status"), "PENDIGN"),
        lambda redis, key: (redis.delete(key(":status")), redis.lpush(key(":status"), "PENDING")),
        lambda redis, key: redis.delete(key(":run")),
        lambda redis, key: (redis.delete(key(":run")), redis.set(key(":run"), "x")),
        lambda redis, key: redis.hdel(key(":run"), "roots"),
    ],
    ids=["status no state", "status no string", "no run", "run no hash", "no roots"],
)
async def test_damaged_keys_are_named_and_nothing_is_written(engine, redis, outcomes, damage):
    execution = await engine.submit(DIAMOND)
    damage(redis, execution.key)
    before = everything(redis)

    with pytest.raises(CorruptExecution, match=execution.id):
        await engine.store.executions.trigger_workflow(execution.id)

    assert outcomes["trigger_workflow"] == ["corrupt"]
    assert everything(redis) == before
    assert not redis.exists(keys.ACTIVE)
