"""Failing downstream: what a failure takes along beyond one call's worth."""

from __future__ import annotations

import pytest

from flowd.orchestrator.executor import fail_downstream
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.executions import NODES_PER_CALL_MAX
from tests.store.engine import Execution, everything, failed_by, fan, finish_continuations

FAILED_AT_ONCE = 1 + DEPENDENTS_PER_CALL_MAX
WIDTH = NODES_PER_CALL_MAX + 700


async def fail_first(engine, graph) -> Execution:
    """An execution whose node `first` has failed, with as many nodes as fit one call."""
    worker = engine.worker("w0")
    execution, entries = await engine.start_and_take(graph, worker)
    (first,) = [entry for entry in entries if entry.node_id == "first"]
    assert await worker.fail(first) == "failed"
    return execution


@pytest.fixture
def wide(engine, runner) -> Execution:
    return runner.run(fail_first(engine, fan(WIDTH)))


def output_of(failed: str) -> bytes:
    return b'{"error":"not run: it depends on \'' + failed.encode() + b"', which failed\"}"


async def test_the_last_slice_finishes_the_execution(engine, wide, outcomes):
    assert wide.states() == {"FAILED": FAILED_AT_ONCE, "PENDING": WIDTH + 2 - FAILED_AT_ONCE}

    await fail_downstream(engine.store, wide.plan, wide.id, "first")

    assert outcomes["fail_downstream"] == ["failed", "finished"]
    assert wide.states() == {"FAILED": WIDTH + 2}
    state = wide.state()
    assert state.outputs == {
        "first": {"error": "boom"},
        **failed_by("first", *list(wide.plan.nodes)[1:]),
    }
    assert state.counters == {"remaining": "0", "failed": "1", "finished_ms": "set"}
    assert (state.status, state.is_active, state.continuations) == ("FAILED", False, [])


async def test_the_execution_goes_on_while_an_independent_branch_runs(engine, outcomes):
    wide = await fail_first(engine, {**fan(WIDTH), "x": []})

    await fail_downstream(engine.store, wide.plan, wide.id, "first")

    assert outcomes["fail_downstream"] == ["failed", "failed"]
    assert wide.states() == {"FAILED": WIDTH + 2, "QUEUED": 1}
    state = wide.state()
    assert (state.status, state.counters["remaining"]) == ("RUNNING", "1")
    assert state.continuations == []


async def test_a_slice_may_be_sent_twice(engine, redis, wide):
    some = list(wide.plan.nodes)[1 : NODES_PER_CALL_MAX + 1]
    fail_some = engine.store.executions.fail_downstream
    said = (wide.id, "first", wide.plan.digest, output_of("first"), some)
    assert await fail_some(*said) == "failed"
    before = everything(redis)

    assert await fail_some(*said) == "failed"

    assert everything(redis) == before


async def test_another_process_goes_on_where_the_first_one_died(engine, plans, wide):

    await finish_continuations(engine.store, plans)

    assert wide.states() == {"FAILED": WIDTH + 2}
    state = wide.state()
    assert (state.status, state.continuations) == ("FAILED", [])


async def test_nothing_is_failed_in_an_execution_that_has_ended(engine, wide, outcomes):
    await engine.store.executions.fail_execution(wide.id, "damaged")
    states = wide.states()

    await fail_downstream(engine.store, wide.plan, wide.id, "first")

    assert outcomes["fail_downstream"] == ["ended", "ended"]
    assert wide.states() == states
    assert wide.state().continuations == []


@pytest.mark.parametrize("remaining", ["many", "1"])
async def test_damaged_counters_are_told(engine, redis, wide, outcomes, remaining):
    redis.hset(wide.key(":run"), "remaining", remaining)

    await fail_downstream(engine.store, wide.plan, wide.id, "first")

    assert outcomes["fail_downstream"][-1] == "corrupt"
    assert wide.state().continuations == []
    assert wide.state().status == "RUNNING"


async def test_two_wide_failures_count_the_nodes_below_both_once(engine):
    middle = [f"m{number}" for number in range(WIDTH)]
    graph = {"a": [], "b": [], **{one: ["a", "b"] for one in middle}}
    worker = engine.worker()
    execution, (a, b) = await engine.start_and_take(graph, worker)

    assert (await worker.fail(a), await worker.fail(b)) == ("failed", "failed")
    assert execution.state().continuations == ["fail a", "fail b"]
    for failed in ("b", "a"):
        await fail_downstream(engine.store, execution.plan, execution.id, failed)

    assert execution.states() == {"FAILED": WIDTH + 2}
    state = execution.state()
    assert (state.status, state.counters["remaining"]) == ("FAILED", "0")
    assert state.continuations == []
