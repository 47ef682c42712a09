"""Nodes of `finally` begin when all others have ended, or are cancelled, and end the execution."""

from __future__ import annotations

import pytest

from flowd.errors import WrongState
from flowd.orchestrator.executor import (
    cancel_execution,
    cancel_nodes,
    pause_execution,
    resume_execution,
)
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.scheduler.reconciler import Reconciler
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.redis import keys
from flowd.workflow.states import ExecutionState
from tests.store.engine import (
    STREAM,
    State,
    everything,
    fan,
    finish_continuations,
    outputs_of,
    run_rounds,
)
from tests.store.maps import expand, fail, mapping, wait
from tests.store.test_retry_node import later, retry

Z = {"z": {"finally": True}, "y": {"finally": True, "dependencies": ["z"]}}
CHAIN = {"a": [], "b": ["a"], **Z}
PAIR = {"a": [], "b": [], **Z}


def ends_as(execution) -> str | None:
    return execution.state().counters.get("ends_as")


def events(redis, execution) -> list[str]:
    return [
        what
        for _, fields in redis.xrange(keys.EVENTS)
        for what, text in fields.items()
        if text.startswith(execution.id) and what.startswith("execution.")
    ]


async def test_finally_begins_when_the_last_of_the_others_has_ended(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    assert await worker.complete(a) == ["completed"]
    assert execution.state().nodes == {
        "a": "COMPLETED",
        "b": "QUEUED",
        "z": "PENDING",
        "y": "PENDING",
    }

    assert await worker.complete(await worker.take_one()) == ["completed"]

    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "COMPLETED", "b": "COMPLETED", "z": "QUEUED", "y": "PENDING"},
        counters={"remaining": "2", "ends_as": "COMPLETED"},
        outputs=outputs_of("a", "b"),
        attempts={"a": "#1 ended on w1", "b": "#1 ended on w1"},
        queued=["z#1"],
    )
    await worker.complete(await worker.take_one())
    assert await worker.complete(await worker.take_one()) == ["finished"]
    assert execution.state().status == "COMPLETED"
    assert events(redis, execution)[-2:] == ["execution.finally_started", "execution.completed"]


@pytest.mark.parametrize("end", ["fail", "skip", "allow", "complete"])
async def test_finally_begins_whatever_the_last_of_the_others_came_to(engine, end):
    worker = engine.worker()
    a_node = {"allow_failure": True} if end == "allow" else {"when": "true"}
    execution, (a,) = await engine.start_and_take({"a": a_node, **Z}, worker)

    said = await getattr(worker, end)(a)

    assert said in ("failed", ["completed"])
    assert execution.state().nodes["z"] == "QUEUED"
    assert ends_as(execution) == ("FAILED" if end == "fail" else "COMPLETED")
    await engine.finish(worker)
    assert execution.state().status == ends_as(execution)


async def test_what_fails_along_with_a_failure_has_ended_too(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], "b": ["a"], "c": ["b"], **Z}, worker)

    assert await worker.fail(a) == "failed"

    assert execution.state().nodes == {
        **dict.fromkeys("abc", "FAILED"),
        "z": "QUEUED",
        "y": "PENDING",
    }
    await engine.finish(worker)
    assert execution.state().status == "FAILED"


async def test_finally_waits_for_the_slices_of_a_wide_failure(engine, store, plans):
    worker = engine.worker()
    wide = fan(DEPENDENTS_PER_CALL_MAX + 500)
    execution, (first,) = await engine.start_and_take({**wide, **Z}, worker)
    await worker.fail(first)
    assert execution.state().nodes["z"] == "PENDING"

    await finish_continuations(store, plans)

    assert execution.state().nodes["z"] == "QUEUED"
    assert execution.state().continuations == []
    await engine.finish(worker)
    assert execution.state().status == "FAILED"


async def test_a_failure_in_finally_fails_the_execution_and_what_depends_on_it(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], **Z}, worker)
    await worker.complete(a)

    assert await worker.fail(await worker.take_one()) == "finished"

    assert execution.state().status == "FAILED"
    assert execution.state().nodes == {"a": "COMPLETED", "z": "FAILED", "y": "FAILED"}


async def test_said_again_the_end_of_the_others_begins_nothing_twice(engine, redis):
    worker = engine.worker()
    _, (a,) = await engine.start_and_take({"a": [], **Z}, worker)
    await worker.complete(a)
    before = everything(redis)

    assert await worker.complete(a) == ["stale"]

    assert everything(redis) == before


async def test_under_a_pause_finally_waits_for_the_end_of_that(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], **Z}, worker)
    await pause_execution(store, execution.id)
    await worker.complete(a)
    assert execution.state().parked == {"z": "0"}
    assert execution.state().queued == []

    await resume_execution(store, execution.id)
    await engine.finish(worker)

    assert execution.state().status == "COMPLETED"


async def test_a_damaged_list_of_finally_ends_the_execution_as_if_there_were_none(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], **Z}, worker)
    redis.hset(execution.key(":run"), "finally", "rubbish")

    assert await worker.complete(a) == ["finished"]


# Cancelled.


async def test_what_has_not_begun_is_cancelled_and_what_runs_is_waited_for(engine, store, redis):
    worker = engine.worker()
    execution, (a, _) = await engine.start_and_take({"a": [], "b": [], "c": ["a"], **Z}, worker)
    await worker.claim(a)

    await cancel_execution(store, execution.id)

    assert execution.state() == State(
        status="CANCELLING",
        nodes={
            "a": "RUNNING",
            "b": "QUEUED",
            "c": "CANCELLED",
            "z": "PENDING",
            "y": "PENDING",
        },
        counters={"remaining": "2", "finally": "2 z"},
        attempts={"a": "#1 runs on w1"},
        held={"w1": ["a#1", "b#1"]},
    )
    assert await store.executions.execution_status(execution.id) is ExecutionState.RUNNING
    row, details = await store.executions.listing.execution(execution.id)
    assert (row.status, details.is_cancelling) == (ExecutionState.RUNNING, True)
    assert events(redis, execution)[-1] == "execution.cancelling"


async def exit_by_claim(_engine, worker, entry):
    assert await worker.claim(entry) == ["ended"]


async def exit_by_completion(_engine, worker, entry):
    assert await worker.complete(entry) == ["ended"]


async def exit_by_failure(_engine, worker, entry):
    assert await worker.fail(entry) == "ended"


async def exit_by_retry(_engine, worker, entry):
    assert await retry(worker, later(entry)) == ["ended"]


async def exit_by_skip(_engine, worker, entry):
    assert await worker.skip(entry) == ["ended"]


async def exit_by_hand_back(engine, worker, entry):
    assert await engine.store.lifecycle.park_node(entry) == "moved"
    outcome, _ = await engine.store.tasks.requeue_entry(entry.name, worker.name)
    assert outcome == "ended"


async def exit_by_death(engine, worker, entry):
    outcome, _ = await engine.store.tasks.requeue_entry(entry.name, worker.name, is_death=True)
    assert outcome == "ended"


EXITS = [
    exit_by_claim,
    exit_by_completion,
    exit_by_failure,
    exit_by_retry,
    exit_by_skip,
    exit_by_hand_back,
    exit_by_death,
]


@pytest.mark.parametrize("leave", EXITS)
@pytest.mark.parametrize("is_running", [False, True])
async def test_finally_begins_when_the_last_entry_of_the_others_has_gone(
    engine, store, redis, leave, is_running
):
    worker = engine.worker()
    execution, (a, b) = await engine.start_and_take(PAIR, worker)
    if is_running:
        await worker.claim(a, b)
    await cancel_execution(store, execution.id)
    await exit_by_completion(engine, worker, a)
    assert execution.state().nodes == {
        "a": "CANCELLED",
        "b": "RUNNING" if is_running else "QUEUED",
        "z": "PENDING",
        "y": "PENDING",
    }

    await leave(engine, worker, b)

    state = execution.state()
    assert state.status == "RUNNING"
    assert state.nodes == {"a": "CANCELLED", "b": "CANCELLED", "z": "QUEUED", "y": "PENDING"}
    assert state.counters["remaining"] == "2"
    assert state.counters["ends_as"] == "CANCELLED"
    assert (state.queued, state.outputs) == (["z#1"], {})
    _, details = await store.executions.listing.execution(execution.id)
    assert details.is_cancelling
    await engine.finish(worker)
    assert execution.state().status == "CANCELLED"
    assert not execution.state().is_active
    assert events(redis, execution)[-3:] == [
        *("execution.cancelling", "execution.finally_started", "execution.cancelled"),
    ]


@pytest.mark.parametrize("is_early", [False, True])
async def test_items_that_have_an_entry_are_waited_for_as_nodes_are(engine, store, is_early):
    worker = engine.worker()
    execution, (fan,) = await engine.start_and_take({**mapping(), **Z}, worker)
    await store.nodes.maps.stage(execution.id, "fan", [1, 2, 3])
    await expand(store, execution, 3, window=2)
    await wait(worker, fan)
    first, second = await worker.take()
    await worker.claim(first)
    if is_early:
        # Before any of them is marked.
        await store.lifecycle.cancel_execution(execution.id)
        assert await worker.claim(first) == ["ended"]
    await cancel_execution(store, execution.id)
    await cancel_nodes(store, execution.plan, execution.id)
    assert execution.state().status == "CANCELLING"
    assert execution.state().nodes == {"fan": "WAITING", "z": "PENDING", "y": "PENDING"}
    if not is_early:
        assert await worker.claim(first) == ["ended"]
        assert execution.state().status == "CANCELLING"

    assert await worker.complete(second) == ["ended"]

    assert (execution.state().status, execution.state().queued) == ("RUNNING", ["z#1"])
    assert execution.state().counters["remaining"] == "2"


@pytest.mark.parametrize("cancelled", ["never", "stopped", "one_left", "gathered"])
async def test_finally_waits_for_what_runs_of_a_map_that_failed_fast(engine, store, cancelled):
    """Whoever cancels meanwhile: what is left of its items was cancelled before, and still runs."""
    worker = engine.worker()
    execution, (fan,) = await engine.start_and_take({**mapping(), **Z}, worker)
    await store.nodes.maps.stage(execution.id, "fan", [1, 2, 3])
    await expand(store, execution, 3, fail_fast=True)
    await wait(worker, fan)
    first, second, third = await worker.take()
    await worker.claim(second, third)

    async def reach(moment: str) -> None:
        if cancelled == moment:
            await cancel_execution(store, execution.id)
        assert execution.state().nodes["z"] == "PENDING"

    await fail(worker, first)
    await reach("stopped")
    assert await worker.claim(second) == ["ended"]
    await reach("one_left")
    assert await worker.complete(third) == ["ended"]
    if cancelled in ("never", "gathered"):
        (fan,) = await worker.take()
        await reach("gathered")
        assert await worker.fail(fan) == ("ended" if cancelled == "gathered" else "failed")

    state = execution.state()
    assert (state.queued, state.counters["remaining"]) == (["z#1"], "2")
    assert state.nodes["fan"] == ("FAILED" if cancelled == "never" else "CANCELLED")
    assert state.waits == {}


async def test_an_entry_of_an_item_that_is_lost_holds_up_no_finally(engine, store, plans, redis):
    worker = engine.worker()
    execution, (fan,) = await engine.start_and_take({**mapping(), **Z}, worker)
    await store.nodes.maps.stage(execution.id, "fan", [1, 2])
    await expand(store, execution, 2)
    await wait(worker, fan)
    first, second = await worker.take()
    await cancel_execution(store, execution.id)
    await run_rounds(Reconciler(store, plans), 3)
    assert execution.state().status == "CANCELLING"
    await worker.claim(first)
    redis.xack(STREAM, "workflow_group", second.name)
    redis.xdel(STREAM, second.name)

    await run_rounds(Reconciler(store, plans), 3)

    assert execution.state().nodes["fan"] == "CANCELLED"
    assert execution.state().queued == ["z#1"]


async def test_without_anything_under_way_finally_begins_at_once(engine, store, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(a))

    await cancel_execution(store, execution.id)

    assert execution.state().queued == ["z#1"]
    assert execution.state().nodes["a"] == "CANCELLED"
    assert redis.zcard(keys.RETRIES) == 0


async def test_two_entries_of_one_call_let_go_of_each_node_once(engine, store):
    worker = engine.worker()
    execution, (a, b) = await engine.start_and_take(PAIR, worker)
    await cancel_execution(store, execution.id)

    assert await worker.complete(a, b) == ["ended", "ended"]

    assert execution.state().counters == {"remaining": "2", "ends_as": "CANCELLED"}


async def test_nothing_opens_while_the_others_are_cancelled(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await store.lifecycle.cancel_execution(execution.id)

    assert await worker.complete(a) == ["ended"]

    assert execution.state().queued == []
    assert execution.state().nodes["b"] == "PENDING"


async def test_a_cancellation_that_broke_off_before_finally_is_carried_on(engine, store, plans):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await store.lifecycle.cancel_execution(execution.id)
    assert execution.state().continuations == ["cancel"]

    await finish_continuations(store, plans)
    await worker.claim(a)

    assert execution.state().continuations == []
    assert execution.state().queued == ["z#1"]


async def test_a_second_cancellation_changes_nothing_about_finally(engine, store, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await cancel_execution(store, execution.id)
    before = everything(redis)
    assert await store.lifecycle.cancel_execution(execution.id) == "cancelling"
    assert everything(redis) == before

    await worker.claim(a)
    before = everything(redis)
    assert await store.lifecycle.cancel_execution(execution.id) == "cancelling"
    assert everything(redis) == before


@pytest.mark.parametrize("has_begun", [False, True])
async def test_a_second_cancellation_by_force_drops_finally(engine, store, has_begun):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await cancel_execution(store, execution.id)
    if has_begun:
        await worker.claim(a)

    await cancel_execution(store, execution.id, force=True)

    state = execution.state()
    assert (state.status, state.is_active, state.continuations) == ("CANCELLED", False, [])
    assert set(state.nodes.values()) == {"CANCELLED"}


async def test_who_cancels_slowly_leaves_what_is_forced_meanwhile_to_be_carried_on(
    engine, store, plans
):
    execution = await engine.start(CHAIN)
    await store.lifecycle.cancel_execution(execution.id)
    await store.lifecycle.cancel_execution(execution.id, force=True)

    await store.lifecycle.cancel_nodes(execution.id, ["a", "b"], before_finally=True)
    assert execution.state().continuations == ["cancel"]
    await finish_continuations(store, plans)

    assert set(execution.state().nodes.values()) == {"CANCELLED"}


async def test_who_cancels_slowly_leaves_nothing_behind_a_finally_that_has_ended_meanwhile(
    engine, store
):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await store.lifecycle.cancel_execution(execution.id)
    await store.lifecycle.cancel_nodes(execution.id, ["b"], before_finally=True)
    await store.lifecycle.cancel_execution(execution.id)
    await worker.claim(a)
    await engine.finish(worker)
    assert execution.state().status == "CANCELLED"

    await store.lifecycle.cancel_nodes(execution.id, ["a", "b"], before_finally=True)

    assert execution.state().continuations == []


async def test_a_cancel_in_finally_lets_it_run_and_end_as_cancelled(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], **Z}, worker)
    await worker.complete(a)

    await cancel_execution(store, execution.id)

    assert ends_as(execution) == "CANCELLED"
    await worker.complete(await worker.take_one())
    assert await worker.complete(await worker.take_one()) == ["cancelled"]
    assert execution.state().status == "CANCELLED"


async def test_a_cancelled_execution_whose_finally_fails_ends_as_cancelled(engine, store):
    worker = engine.worker()
    execution = await engine.start(CHAIN)
    await cancel_execution(store, execution.id)
    await worker.claim(await worker.take_one())

    assert await worker.fail(await worker.take_one()) == "cancelled"

    assert execution.state().status == "CANCELLED"
    assert execution.state().nodes["z"] == "FAILED"


async def test_a_cancel_ends_a_pause(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.complete(a)
    await store.lifecycle.pause_execution(execution.id)

    await cancel_execution(store, execution.id)
    await worker.claim(*await worker.take())

    assert execution.state().status == "RUNNING"
    assert execution.state().queued == ["z#1"]


async def test_what_a_pause_has_kept_does_not_come_back_beside_finally(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await store.lifecycle.pause_execution(execution.id)
    await worker.complete(a)
    assert execution.state().parked == {"b": "0"}

    await cancel_execution(store, execution.id)

    state = execution.state()
    assert (state.parked, state.queued, state.nodes["b"]) == ({}, ["z#1"], "CANCELLED")


async def test_a_cancel_ends_a_pause_in_finally(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], **Z}, worker)
    await pause_execution(store, execution.id)
    await worker.complete(a)
    assert execution.state().parked == {"z": "0"}

    await cancel_execution(store, execution.id)

    state = execution.state()
    assert (state.status, state.parked, state.queued) == ("RUNNING", {}, ["z#1"])
    assert state.continuations == []


async def test_the_finally_of_what_was_cancelled_is_not_paused(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], **Z}, worker)
    await cancel_execution(store, execution.id)
    for _ in range(2):
        with pytest.raises(WrongState, match="it is RUNNING, and is being cancelled"):
            await pause_execution(store, execution.id)
        await worker.claim(a)
        assert execution.state().queued == ["z#1"]

    await engine.finish(worker)
    assert execution.state().status == "CANCELLED"


async def test_what_was_never_triggered_runs_no_finally(engine, store):
    execution = await engine.submit(CHAIN)

    await cancel_execution(store, execution.id)

    assert execution.state().status == "CANCELLED"
    assert set(execution.state().nodes.values()) == {"CANCELLED"}


async def test_what_is_damaged_runs_no_finally(engine, store):
    execution = await engine.start(CHAIN)

    await store.executions.fail_execution(execution.id, "a hand was in its keys")

    assert execution.state().status == "FAILED"
    assert execution.state().nodes["z"] == "PENDING"


async def test_an_execution_that_is_being_cancelled_is_running_to_everybody(engine, store, redis):
    execution = await engine.start(CHAIN)
    await store.lifecycle.cancel_execution(execution.id)

    assert await store.executions.trigger_workflow(execution.id) == "RUNNING"
    assert await store.finished.delete_execution(execution.id) == "RUNNING"
    with pytest.raises(WrongState, match="it is RUNNING, and is being cancelled"):
        await pause_execution(store, execution.id)
    redis.delete(keys.ACTIVE)
    _, readmitted = await store.executions.readmit_slice("0", 100)
    assert readmitted == [execution.id]


async def test_an_entry_that_is_lost_holds_up_no_finally(engine, store, plans, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await cancel_execution(store, execution.id)
    redis.xack(STREAM, "workflow_group", a.name)
    redis.xdel(STREAM, a.name)
    reconciler = Reconciler(store, plans)

    for _ in range(3):
        await reconciler.run_slice()

    assert execution.state().nodes["a"] == "CANCELLED"
    assert execution.state().queued == ["z#1"]


async def test_tokens_a_cancelled_node_had_set_aside_are_spent_before_finally(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await store.budgets.reserve(execution.id, "a", 1, tokens=60, budget=100)
    await cancel_execution(store, execution.id)

    await worker.claim(a)

    assert execution.state().counters["tokens:spent"] == "60"


# Run again.


async def test_a_rerun_runs_finally_again_behind_the_others(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.complete(a)
    await worker.fail(await worker.take_one())
    await engine.finish(worker)

    planned = await plan_rerun(store, execution.id, "failed")
    assert set(planned.runs) == {"b", "z", "y"}
    again = await rerun_execution(store, planned)
    await store.executions.trigger_workflow(again)

    entry = await worker.take_one()
    assert entry.node_id == "b"
    await worker.complete(entry)
    await engine.finish(worker)
    assert await store.executions.execution_status(again) is ExecutionState.COMPLETED


async def test_a_rerun_of_what_failed_in_finally_alone_begins_there(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], **Z}, worker)
    await worker.complete(a)
    await worker.fail(await worker.take_one())

    planned = await plan_rerun(store, execution.id, "failed")
    assert set(planned.runs) == {"z", "y"}
    again = await rerun_execution(store, planned)
    await store.executions.trigger_workflow(again)

    assert (await worker.take_one()).node_id == "z"
    states = await store.executions.node_states(again)
    assert {one: str(state) for one, state in states.items()} == {
        "a": "COMPLETED",
        "z": "QUEUED",
        "y": "PENDING",
    }


async def test_a_rerun_from_a_node_of_finally_leaves_what_failed_as_it_is(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], **Z}, worker)
    await worker.fail(a)
    await engine.finish(worker)

    planned = await plan_rerun(store, execution.id, "z")
    assert set(planned.left_out) == {"a"}
    again = await rerun_execution(store, planned)
    await store.executions.trigger_workflow(again)
    await engine.finish(worker)

    assert await store.executions.execution_status(again) is ExecutionState.FAILED


async def test_where_nothing_failed_a_rerun_has_nothing_to_run(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], **Z}, worker)
    await worker.complete(a)
    await engine.finish(worker)

    planned = await plan_rerun(store, execution.id, "failed")

    assert planned.runs == {}
    with pytest.raises(WrongState, match="name the node to begin with"):
        await rerun_execution(store, planned)


async def test_all_of_a_deleted_execution_with_a_finally_goes(engine, store, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": [], **Z}, worker)
    await worker.complete(a)
    await engine.finish(worker)

    assert await store.finished.delete_execution(execution.id) == "deleted"

    assert redis.keys(f"workflow:{execution.id}*") == []


async def test_without_a_finally_the_run_says_nothing_of_one(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": []}, worker)
    await worker.complete(a)

    assert execution.state().counters == {"remaining": "0", "finished_ms": "set"}
