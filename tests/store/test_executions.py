"""Reading executions: what clients are told, also when a key was damaged."""

from __future__ import annotations

from functools import partial

import pytest

from flowd.errors import CorruptExecution, UnknownExecution
from flowd.store.executions import NODES_PER_CALL_MAX
from flowd.store.facts import Fact
from flowd.workflow.states import ExecutionState, NodeState
from tests.store.engine import CHAIN, fan, outputs_of, results_of

AN_ID = "0123456789ab0123456789ab"


async def test_status_states_and_results_follow_the_execution(engine):
    read = engine.store.executions
    worker = engine.worker()
    execution = await engine.submit(CHAIN)
    assert await read.execution_status(execution.id) is ExecutionState.PENDING
    assert await read.node_states(execution.id) == dict.fromkeys("abc", NodeState.PENDING)
    assert await results_of(engine.store, execution.id) == {}

    await read.trigger_workflow(execution.id)
    await worker.complete(await worker.take_one())
    b = await worker.take_one()
    await worker.claim(b)
    assert await read.execution_status(execution.id) is ExecutionState.RUNNING
    assert await read.node_states(execution.id) == {
        "a": NodeState.COMPLETED,
        "b": NodeState.RUNNING,
        "c": NodeState.PENDING,
    }
    assert await results_of(engine.store, execution.id) == outputs_of("a")

    await worker.fail(b)
    assert await read.execution_status(execution.id) is ExecutionState.FAILED
    assert await results_of(engine.store, execution.id) == {
        "a": {"node": "a"},
        "b": {"error": "boom"},
        "c": {"error": "not run: it depends on 'b', which failed"},
    }


async def test_more_nodes_than_one_call_reads_are_all_read_in_their_order(engine):
    execution = await engine.start(fan(NODES_PER_CALL_MAX + 100))

    states = await engine.store.executions.node_states(execution.id)

    assert list(states) == list(execution.plan.nodes)
    assert list(states.values()) == [NodeState.QUEUED] + [NodeState.PENDING] * (len(states) - 1)


async def test_an_unknown_execution_is_unknown_to_every_read(engine):
    read = engine.store.executions
    for ask in (
        read.execution_status,
        read.node_states,
        partial(results_of, engine.store),
        read.definition,
    ):
        with pytest.raises(UnknownExecution):
            await ask(AN_ID)


@pytest.mark.parametrize(
    "damage",
    [
        lambda redis, key: redis.set(key(":status"), "RUNING"),
        lambda redis, key: (redis.delete(key(":status")), redis.lpush(key(":status"), "x")),
    ],
    ids=["no state", "no string"],
)
async def test_a_damaged_status_is_told_by_every_read(engine, redis, damage):
    read = engine.store.executions
    execution = await engine.start(CHAIN)
    damage(redis, execution.key)

    for ask in (read.execution_status, read.node_states, partial(results_of, engine.store)):
        with pytest.raises(CorruptExecution, match=execution.id):
            await ask(execution.id)


@pytest.mark.parametrize("definition", ["not JSON", "[]", '{"dag":{"nodes":[1]}}', None])
async def test_a_damaged_definition_is_told(engine, redis, definition):
    read = engine.store.executions
    execution = await engine.start(CHAIN)
    if definition is None:
        redis.delete(execution.key())
        redis.lpush(execution.key(), "x")
    else:
        redis.set(execution.key(), definition)

    assert await read.execution_status(execution.id) is ExecutionState.RUNNING
    for ask in (read.node_states, partial(results_of, engine.store)):
        with pytest.raises(CorruptExecution, match=r"definition|of another type"):
            await ask(execution.id)


async def test_an_output_that_is_no_json_is_told(engine, redis):
    execution = await engine.start(CHAIN)
    redis.set(execution.key(":node:a:output"), "{")

    with pytest.raises(CorruptExecution, match="not JSON"):
        await results_of(engine.store, execution.id)


async def test_outputs_are_fetched_across_executions_in_the_order_asked_for(engine, redis):
    worker = engine.worker()
    one, (a,) = await engine.start_and_take(CHAIN, worker)
    other, (b,) = await engine.start_and_take(CHAIN, worker)
    await worker.complete(a, b)
    redis.delete(other.key(":node:a:output"))
    redis.lpush(other.key(":node:a:output"), "a list")

    wanted = [
        Fact("output", *pair)
        for pair in ((one.id, "b"), (one.id, "a"), (other.id, "a"), (AN_ID, "a"))
    ]
    found, large = await engine.store.tasks.facts.find(wanted, 1_000)

    assert large == {}
    assert [found[fact] for fact in wanted] == [None, '{"node":"a"}', None, None]
