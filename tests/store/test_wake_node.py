"""wake_node.lua: the first to say that what a node waits for has come decides, and nobody after."""

from __future__ import annotations

import asyncio

import pytest

from flowd.errors import CorruptExecution, UnknownExecution
from tests.store.engine import CHAIN, HOUR_MS, State, everything


async def test_a_node_that_waits_is_queued_with_the_decision_kept(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, "signal", due_ms=HOUR_MS)

    wake = await store.tasks.waits.wake(execution.id, "a", "signal", '{"x": 1}')

    assert wake.outcome == "woken"
    assert wake.decision is not None
    assert wake.decision._replace(at_ms=0) == (1, "signal", 0, '{"x": 1}')
    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3", "waits:a": "1"},
        attempts={"a": "#2 queued"},
        queued=["a#2"],
        decisions={"a": '1 signal {"x": 1}'},
    )


async def test_whoever_comes_later_hears_what_was_decided_and_changes_nothing(engine, store, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, "signal")
    first = await store.tasks.waits.wake(execution.id, "a", "signal", "1")
    before = everything(redis)

    assert await store.tasks.waits.wake(execution.id, "a", "signal", "2") == (
        "decided",
        first.decision,
    )

    assert everything(redis) == before


async def test_of_a_signal_a_date_and_a_cancel_at_once_one_decides(engine, store):
    worker = engine.worker()
    for _ in range(100):
        execution, (a,) = await engine.start_and_take({"a": []}, worker)
        await worker.wait(a, "signal", due_ms=0)

        wake, _, cancelled = await asyncio.gather(
            store.tasks.waits.wake(execution.id, "a", "signal"),
            store.retries.dispatch(),
            store.lifecycle.cancel_execution(execution.id),
        )

        await store.lifecycle.cancel_nodes(execution.id, ["a"])
        state = execution.state()
        assert (cancelled, state.status, state.nodes) == (
            "cancelled",
            "CANCELLED",
            {"a": "CANCELLED"},
        )
        assert (state.waits, state.waiting) == ({}, [])
        won = {"woken": ["1 signal "], "decided": ["1 date "], "ended": []}[wake.outcome]
        assert list(state.decisions.values()) == won or wake.outcome == "ended"
        await worker.take()


async def test_woken_while_paused_it_is_kept_until_the_execution_is_resumed(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, "signal")
    await store.lifecycle.pause_execution(execution.id)

    assert (await store.tasks.waits.wake(execution.id, "a", "signal")).outcome == "woken"

    state = execution.state()
    assert (state.nodes["a"], state.parked, state.waits) == ("PENDING", {"a": "0"}, {})
    await store.lifecycle.resume_execution(execution.id)
    again = await worker.take_one()
    assert (again.attempt, again.waits) == (2, 1)


async def test_one_that_comes_before_the_execution_starts_is_kept(engine, store):
    execution = await engine.submit(CHAIN)

    assert (await store.tasks.waits.wake(execution.id, "b", "signal")).outcome == "kept"

    assert execution.state().decisions == {"b": "1 signal "}


@pytest.mark.parametrize("is_cancelled", [False, True])
async def test_for_a_node_that_has_ended_nothing_is_kept(engine, store, redis, is_cancelled):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    if is_cancelled:
        await store.lifecycle.cancel_execution(execution.id)
    else:
        await worker.complete(a)
    before = everything(redis)

    assert await store.tasks.waits.wake(execution.id, "a", "signal") == ("ended", None)

    assert everything(redis) == before


async def test_what_decided_is_told_after_the_node_has_ended_too(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, "signal")
    first = await store.tasks.waits.wake(execution.id, "a", "signal", "1")
    await worker.complete(await worker.take_one())

    assert await store.tasks.waits.wake(execution.id, "a", "signal", "2") == (
        "decided",
        first.decision,
    )


async def test_nobody_waits_in_what_does_not_exist(engine, store):
    execution = await engine.submit(CHAIN)

    for execution_id, node_id in (("0" * 24, "a"), (execution.id, "z")):
        with pytest.raises(UnknownExecution):
            assert await store.tasks.waits.wake(execution_id, node_id, "signal") == "unknown"


async def test_damaged_decisions_are_told(engine, store, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, "signal")
    redis.set(execution.key(":decisions"), "x")

    with pytest.raises(CorruptExecution):
        assert await store.tasks.waits.wake(execution.id, "a", "signal") == "corrupt"


async def test_a_lost_worker_of_a_woken_node_costs_neither_decision_nor_number(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, "signal")
    await store.tasks.waits.wake(execution.id, "a", "signal", "1")
    entry = await worker.take_one()

    assert (await store.tasks.requeue_entry(entry.name, "w1"))[0] == "requeued"

    again = await worker.take_one()
    assert (again.attempt, again.waits) == (3, 1)
    assert execution.state().decisions == {"a": "1 signal 1"}
