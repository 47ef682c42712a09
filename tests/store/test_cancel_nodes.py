"""The nodes of a cancelled execution are marked, slice by slice."""

from __future__ import annotations

from flowd.orchestrator.executor import cancel_execution
from flowd.store.redis import keys
from tests.store.engine import CHAIN, DIAMOND, HOUR_MS, State, fan, finish_continuations, outputs_of
from tests.store.test_retry_node import later, retry


async def test_nodes_that_had_not_ended_are_cancelled(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(DIAMOND, worker)
    await worker.complete(a)
    b, _ = await worker.take()
    await retry(worker, later(b))

    await cancel_execution(store, execution.id)

    assert execution.state() == State(
        status="CANCELLED",
        nodes={"a": "COMPLETED", "b": "CANCELLED", "c": "CANCELLED", "d": "CANCELLED"},
        counters={
            "remaining": "3",
            "failures:b": "1",
            "error:b": "boom",
            "finished_ms": "set",
        },
        outputs=outputs_of("a"),
        attempts={"a": "#1 ended on w1", "b": "#1 ended on w1"},
        held={"w1": ["c#1"]},
    )


async def test_every_slice_of_a_wide_execution_is_marked(engine, store):
    execution = await engine.submit(fan(2500))

    await cancel_execution(store, execution.id)

    assert execution.states() == {"CANCELLED": 2502}
    assert execution.state().continuations == []


async def test_a_cancellation_that_broke_off_is_carried_on(engine, store, redis, plans):
    execution = await engine.start(CHAIN)
    await store.lifecycle.cancel_execution(execution.id)

    await finish_continuations(store, plans)

    assert execution.states() == {"CANCELLED": 3}
    assert redis.zcard(keys.CONTINUATIONS) == 0


async def test_nodes_of_an_execution_that_runs_are_not_touched(engine, store):
    execution = await engine.start(CHAIN)

    await store.lifecycle.cancel_nodes(execution.id, list(execution.plan.nodes))

    assert execution.states() == {"QUEUED": 1, "PENDING": 2}


async def test_what_waits_is_cancelled_with_its_record_and_its_date(engine, store):
    worker = engine.worker()
    graph = {"a": [], "b": [], "c": []}
    execution, (a, b, c) = await engine.start_and_take(graph, worker)
    await worker.wait(a)
    await worker.wait(b, "moment", due_ms=4_102_444_800_000)
    await worker.wait(c, "signal", due_ms=HOUR_MS)

    await cancel_execution(store, execution.id)

    state = execution.state()
    assert set(state.nodes.values()) == {"CANCELLED"}
    assert (state.waits, state.waiting, state.alarms) == ({}, [], [])
