"""Children: their ends wake their parents, and they follow what becomes of those."""

from __future__ import annotations

import pytest

from flowd.orchestrator import executor
from flowd.orchestrator.recovery import finish_continuation
from flowd.scheduler.retention import forget_finished
from flowd.store.redis import keys
from tests.store.engine import (
    CHAIN,
    Execution,
    ScriptedEngine,
    State,
    Worker,
    everything,
    finish_continuations,
)

CALLS = {"call": {"handler": "workflow", "config": {"name": "x"}}}
ONE = {"a": []}
LATER_MS = 10**13


async def parent_and_child(
    engine: ScriptedEngine, worker: Worker, graph=ONE, calls=CALLS
) -> tuple[Execution, Execution]:
    """A parent whose node `call` waits for a child."""
    parent, entries = await engine.start_and_take(calls, worker)
    (call,) = [one for one in entries if one.node_id == "call"]
    _, child = await engine.start_child(parent, "call", graph)
    assert await worker.wait(call, "child", text=child.id) == "waiting"
    return parent, child


def ended_and_woken(child: Execution, status: str) -> State:
    return State(
        status="RUNNING",
        nodes={"call": "QUEUED"},
        counters={"remaining": "1", "waits:call": "1", "tree": "2", "children": "0"},
        attempts={"call": "#2 queued"},
        queued=["call#2"],
        decisions={"call": f"1 child {child.id} {status}"},
    )


async def test_the_end_of_a_child_wakes_its_node_in_the_same_call(engine):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)

    assert await worker.complete(await worker.take_one()) == ["finished"]

    assert parent.state() == ended_and_woken(child, "COMPLETED")


async def test_a_child_that_failed_wakes_its_node_too(engine):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)

    assert await worker.fail(await worker.take_one()) == "finished"

    assert parent.state() == ended_and_woken(child, "FAILED")


async def test_a_child_that_was_cancelled_wakes_its_node_too(engine, store):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)

    await executor.cancel_execution(store, child.id)

    state = parent.state()
    assert state.decisions == {"call": f"1 child {child.id} CANCELLED"}
    assert (state.nodes, state.counters["children"]) == ({"call": "QUEUED"}, "0")


async def test_a_child_that_is_corrupt_wakes_its_node_too(engine, store):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)

    await store.executions.fail_execution(child.id, "a hand was in it")

    assert parent.state().decisions == {"call": f"1 child {child.id} FAILED"}


async def test_a_child_that_ends_before_the_wait_commits_wakes_its_node_at_once(engine):
    worker = engine.worker()
    parent, (call,) = await engine.start_and_take(CALLS, worker)
    _, child = await engine.start_child(parent, "call", ONE)
    await worker.complete(await worker.take_one())
    assert parent.state().decisions == {"call": f"1 child {child.id} COMPLETED"}

    assert await worker.wait(call, "child", text=child.id) == "woken"

    assert parent.state() == ended_and_woken(child, "COMPLETED")


async def test_the_end_of_an_earlier_child_wakes_nobody_who_waits_for_a_later_one(engine, redis):
    worker = engine.worker()
    parent, (call,) = await engine.start_and_take(CALLS, worker)
    _, first = await engine.start_child(parent, "call", ONE)
    redis.hset(parent.key(":run"), "failures:call", 1)
    _, second = await engine.start_child(parent, "call", ONE, number=2)
    one, other = await worker.take()
    assert await worker.wait(call, "child", number=2, text=second.id) == "waiting"

    await worker.complete(one)

    assert parent.state_of("call") == "WAITING"
    await worker.complete(other)
    assert parent.state_of("call") == "QUEUED"
    assert parent.state().decisions == {"call": f"2 child {second.id} COMPLETED"}
    assert first.state().status == second.state().status == "COMPLETED"


async def test_children_that_end_in_one_call_wake_each_its_own_node_once(engine, store):
    worker = engine.worker()
    calls = {one: {"handler": "workflow", "config": {"name": "x"}} for one in "abcd"}
    parent, entries = await engine.start_and_take(calls, worker)
    paused, (call,) = await engine.start_and_take(CALLS, worker)
    made = [(await engine.start_child(parent, one, ONE))[1] for one in "abcd"]
    of_paused = (await engine.start_child(paused, "call", ONE))[1]
    # d has not come to its wait yet.
    await worker.wait_together(entries[:3], "child")
    await worker.wait(call, "child")
    nodes = await worker.take()
    await store.lifecycle.pause_execution(paused.id)

    assert await worker.complete(*nodes) == ["finished"] * 5

    state = parent.state()
    assert state.nodes == {"a": "QUEUED", "b": "QUEUED", "c": "QUEUED", "d": "QUEUED"}
    assert sorted(state.queued) == ["a#2", "b#2", "c#2"]
    assert (state.waits, state.counters["children"]) == ({}, "0")
    assert state.decisions == {
        one: f"1 child {child.id} COMPLETED" for one, child in zip("abcd", made, strict=True)
    }
    held = paused.state()
    assert (held.nodes, held.parked, held.queued) == ({"call": "PENDING"}, {"call": "0"}, [])
    assert held.decisions == {"call": f"1 child {of_paused.id} COMPLETED"}
    assert {one.state().status for one in made} == {"COMPLETED"}


async def test_of_two_children_of_a_node_that_end_in_one_call_the_later_decides(engine, redis):
    worker = engine.worker()
    parent, (call,) = await engine.start_and_take(CALLS, worker)
    await engine.start_child(parent, "call", ONE)
    redis.hset(parent.key(":run"), "failures:call", 1)
    _, second = await engine.start_child(parent, "call", ONE, number=2)
    one, other = await worker.take()
    await worker.wait(call, "child", number=2, text=second.id)

    assert await worker.complete(other, one) == ["finished", "finished"]

    state = parent.state()
    assert (state.queued, state.counters["children"]) == (["call#2"], "0")
    assert state.decisions == {"call": f"2 child {second.id} COMPLETED"}


async def test_the_failures_of_a_node_outlive_its_wait_for_a_child(engine, redis):
    worker = engine.worker()
    parent, (call,) = await engine.start_and_take(CALLS, worker)
    redis.hset(parent.key(":run"), "failures:call", 1)
    _, child = await engine.start_child(parent, "call", ONE, number=2)
    await worker.wait(call, "child", number=2, text=child.id)
    await worker.complete(await worker.take_one())

    woken = await worker.take_one()

    assert (woken.failures, woken.waits) == (1, 2)


async def test_a_child_whose_parent_forgot_it_ends_by_itself(engine, redis):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)
    redis.delete(keys.children(parent.id))
    before = parent.state()

    assert await worker.complete(await worker.take_one()) == ["finished"]

    assert child.state().status == "COMPLETED"
    assert parent.state() == before


async def test_a_cancel_goes_down_the_whole_tree_and_nowhere_else(engine, store):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker, CALLS)
    call = await worker.take_one()
    _, grandchild = await engine.start_child(child, "call", CHAIN)
    await worker.wait(call, "child", text=grandchild.id)
    other, _ = await engine.start_and_take(ONE, engine.worker("w2"))

    await executor.cancel_execution(store, parent.id)

    for one in (parent, child, grandchild):
        state = one.state()
        assert state.status == "CANCELLED"
        assert set(state.nodes.values()) == {"CANCELLED"}
        assert (state.continuations, state.waits) == ([], {})
    assert other.state().status == "RUNNING"
    assert parent.state().counters["children"] == child.state().counters["children"] == "0"


@pytest.mark.parametrize("force", [False, True])
async def test_a_cancel_that_broke_off_is_carried_on_by_others(engine, store, plans, force):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)
    await store.lifecycle.cancel_execution(parent.id, force=force)
    assert child.state().status == "RUNNING"

    await finish_continuations(store, plans)

    assert child.state().status == "CANCELLED"
    assert parent.state().continuations == child.state().continuations == []


async def test_children_end_with_their_finally_unless_they_are_forced(engine, store):
    worker = engine.worker()
    graph = {"a": [], "z": {"dependencies": [], "finally": True}}
    for force, status in ((False, "CANCELLING"), (True, "CANCELLED")):
        parent, child = await parent_and_child(engine, worker, graph)
        await worker.take()

        await executor.cancel_execution(store, parent.id, force=force)

        assert child.state().status == status
        assert parent.state().status == "CANCELLED"


async def test_a_parent_with_a_finally_cancels_the_children_of_its_other_nodes_only(engine, store):
    worker = engine.worker()
    calls = {**CALLS, "last": {"handler": "workflow", "config": {"name": "x"}, "finally": True}}
    parent, child = await parent_and_child(engine, worker, calls=calls)
    await executor.cancel_execution(store, parent.id)
    assert child.state().status == "CANCELLED"
    (last,) = [one for one in await worker.take() if one.node_id == "last"]
    _, of_finally = await engine.start_child(parent, "last", ONE)
    await worker.wait(last, "child", text=of_finally.id)

    await executor.cancel_execution(store, parent.id)

    assert of_finally.state().status == "RUNNING"
    await executor.cancel_execution(store, parent.id, force=True)
    assert of_finally.state().status == "CANCELLED"


async def test_a_pause_and_its_end_go_down_the_tree(engine, store):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker, CALLS)
    call = await worker.take_one()
    _, grandchild = await engine.start_child(child, "call", CHAIN)
    await worker.wait(call, "child", text=grandchild.id)

    await executor.pause_execution(store, parent.id)
    assert [one.state().status for one in (parent, child, grandchild)] == ["PAUSED"] * 3

    await executor.resume_execution(store, parent.id)
    assert [one.state().status for one in (parent, child, grandchild)] == ["RUNNING"] * 3
    assert [one.state().continuations for one in (parent, child, grandchild)] == [[]] * 3


async def test_a_pause_that_broke_off_does_not_outlive_the_resume_behind_it(engine, store, plans):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)
    await store.lifecycle.pause_execution(parent.id)
    await store.lifecycle.resume_execution(parent.id)

    # Whoever was to pause it comes late.
    assert await store.lifecycle.pause_execution(child.id, parent_id=parent.id) == "moved"
    await finish_continuations(store, plans)

    assert child.state().status == "RUNNING"
    assert parent.state().continuations == []


async def test_who_follows_begins_anew_when_the_parent_has_moved_on(engine, store):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)
    await store.lifecycle.pause_execution(parent.id)
    pages = store.children.pages

    async def resumed_meanwhile(execution_id):
        store.children.pages = pages
        async for page in pages(execution_id):
            yield page
        await executor.follow(store, parent.id, executor.HOLD)
        await store.lifecycle.resume_execution(parent.id)

    store.children.pages = resumed_meanwhile
    await executor.follow(store, parent.id, executor.HOLD)

    assert child.state().status == "RUNNING"
    assert parent.state().continuations == []


async def test_what_is_to_be_followed_since_is_not_dropped_with_what_was(engine, store, plans):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)
    await store.lifecycle.pause_execution(parent.id)
    settle_follow = store.children.settle_follow

    async def resumed_since(execution_id, *facts):
        assert await settle_follow(execution_id, *facts)
        if execution_id == parent.id:
            store.children.settle_follow = settle_follow
            # By a process that dies before the child follows.
            await store.lifecycle.resume_execution(parent.id)
        return True

    store.children.settle_follow = resumed_since
    (left,) = await store.executions.continuations(10)
    await finish_continuation(store, plans, left)
    assert (child.state().status, parent.state().continuations) == ("PAUSED", ["follow hold"])

    await finish_continuations(store, plans)

    assert child.state().status == "RUNNING"
    assert parent.state().continuations == []


async def test_a_child_that_was_paused_by_itself_is_left_so_by_who_looks_for_orphans(engine, store):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)
    await executor.pause_execution(store, child.id)

    await executor.follow(store, parent.id)

    assert child.state().status == "PAUSED"


async def test_a_parent_that_ends_otherwise_leaves_no_child_behind(engine, store, plans):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)
    await store.executions.fail_execution(parent.id, "a hand was in it")
    assert parent.state().continuations == ["follow"]

    await finish_continuations(store, plans)

    assert child.state().status == "CANCELLED"


async def test_a_child_is_not_deleted_before_its_parent_and_goes_with_it(engine, store, redis):
    worker = engine.worker()
    before = set(everything(redis))
    parent, child = await parent_and_child(engine, worker)
    await worker.complete(await worker.take_one())
    assert await store.finished.delete_execution(child.id) == "child"
    await worker.complete(await worker.take_one())

    assert await store.finished.delete_execution(parent.id) == "deleted"

    kept = set(everything(redis)) - before
    assert not [key for key in kept if parent.id in key or child.id in key]
    assert redis.zcard(keys.EXECUTIONS) == redis.zcard(keys.FINISHED) == 0


async def test_a_parent_is_not_deleted_while_a_child_runs(engine, store):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)
    await store.lifecycle.cancel_execution(parent.id)

    assert await store.finished.delete_execution(parent.id) == "parent"

    await executor.follow(store, parent.id)
    assert await store.finished.delete_execution(parent.id) == "deleted"
    assert child.state().status is None


async def test_retention_takes_children_with_their_parent_and_not_before(engine, store, redis):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)
    await worker.complete(await worker.take_one())
    await forget_finished(store, 1, LATER_MS)
    assert child.state().status == "COMPLETED"
    await worker.complete(await worker.take_one())

    await forget_finished(store, 1, LATER_MS)

    assert parent.state().status is child.state().status is None
    assert redis.zcard(keys.EXECUTIONS) == 0


async def test_a_deletion_that_broke_off_is_carried_on_with_its_children(
    engine, store, redis, plans
):
    worker = engine.worker()
    parent, child = await parent_and_child(engine, worker)
    await worker.complete(await worker.take_one())
    await worker.complete(await worker.take_one())
    await store.finished._begin(parent.id, how="0")
    assert child.state().status == "COMPLETED"

    await finish_continuations(store, plans)

    assert redis.zcard(keys.EXECUTIONS) == 0
    assert not redis.exists(keys.definition(child.id), keys.children(parent.id))
