"""start_children.lua: a node has one child for each of its waits, in the state its parent is in."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from flowd.errors import StoreError, StoreUnavailable
from flowd.store.child_starts import ChildStart, ChildWorkflow
from flowd.store.making import Pin
from flowd.store.redis import keys
from flowd.workflow.children import Parent
from flowd.workflow.concurrency import place_of
from flowd.workflow.ids import child_id
from tests.store.engine import CHAIN, State, compiled, everything


async def test_a_child_is_made_and_runs(engine, redis):
    parent, _ = await engine.start_and_take({"a": [], "b": ["a"]}, engine.worker())

    outcome, child = await engine.start_child(parent, "a", CHAIN, given_input=b'{"x": 1}')

    assert outcome == "triggered"
    assert child.id == child_id(parent.id, "a", 1)
    assert child.state() == State(
        status="RUNNING",
        nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING"},
        counters={
            "remaining": "3",
            "parent": f"{parent.id} a 1 {parent.id} 2",
            "definition": "report@1",
        },
        queued=["a#1"],
    )
    assert redis.get(keys.given_input(child.id)) == '{"x": 1}'
    assert redis.hgetall(keys.children(parent.id)) == {child.id: "a 1"}
    assert parent.state().counters == {"remaining": "2", "tree": "2", "children": "1"}
    assert redis.zscore(keys.EXECUTIONS, child.id) == 0


async def test_a_child_that_is_made_is_not_made_again(engine, redis):
    parent, _ = await engine.start_and_take({"a": []}, engine.worker())
    await engine.start_child(parent, "a", CHAIN)
    before = everything(redis)

    outcome, _ = await engine.start_child(parent, "a", CHAIN)

    assert outcome == "exists"
    assert everything(redis) == before


async def test_another_execution_of_its_id_is_not_taken_for_it(engine, redis):
    parent, _ = await engine.start_and_take({"a": []}, engine.worker())
    other = await engine.submit(CHAIN)
    redis.rename(other.key(":status"), f"workflow:{child_id(parent.id, 'a', 1)}:status")
    before = everything(redis)

    outcome, _ = await engine.start_child(parent, "a", CHAIN)

    assert outcome == "taken"
    assert everything(redis) == before


async def test_a_child_of_a_paused_parent_is_paused(engine, store):
    parent, _ = await engine.start_and_take({"a": []}, engine.worker())
    await store.lifecycle.pause_execution(parent.id)

    _, child = await engine.start_child(parent, "a", CHAIN)

    state = child.state()
    assert (state.status, state.queued, state.parked) == ("PAUSED", [], {"a": "0"})


async def test_nothing_is_made_for_what_is_not_to_run(engine, store, redis):
    worker = engine.worker()
    cancelled, _ = await engine.start_and_take({"a": []}, worker)
    await store.lifecycle.cancel_execution(cancelled.id)
    pending = await engine.submit({"a": []})
    waiting, (a,) = await engine.start_and_take({"a": []}, worker)
    await worker.wait(a)
    cancelling, _ = await engine.start_and_take(
        {"a": [], "z": {"dependencies": [], "finally": True}}, worker
    )
    await store.lifecycle.cancel_execution(cancelling.id)
    running, _ = await engine.start_and_take({"a": []}, worker)
    before = everything(redis)

    for parent, number in (
        *((one, 1) for one in (cancelled, pending, waiting, cancelling)),
        # An attempt that failed since has another child.
        (running, 2),
    ):
        outcome, _ = await engine.start_child(parent, "a", CHAIN, number=number)
        assert outcome == "ended"

    assert everything(redis) == before


async def test_the_sixteenth_has_no_child(engine, redis):
    worker = engine.worker()
    root, _ = await engine.start_and_take({"a": []}, worker)
    execution = root
    for depth in range(2, 17):
        outcome, child = await engine.start_child(execution, "a", {"a": []})
        assert outcome == "triggered"
        assert redis.hget(child.key(":run"), "parent").endswith(f" {depth}")
        await worker.take()
        execution = child
    before = everything(redis)

    outcome, _ = await engine.start_child(execution, "a", CHAIN)

    assert outcome == "deep"
    assert everything(redis) == before
    assert root.state().counters["tree"] == "16"


async def test_a_tree_is_counted_at_its_root_and_does_not_grow_for_ever(engine, redis):
    worker = engine.worker()
    root, _ = await engine.start_and_take({"a": [], "b": []}, worker)
    _, child = await engine.start_child(root, "a", {"a": []})
    await worker.take()
    redis.hset(root.key(":run"), "tree", 9_999)

    assert (await engine.start_child(child, "a", CHAIN))[0] == "triggered"
    before = everything(redis)
    assert (await engine.start_child(root, "b", CHAIN))[0] == "large"
    assert everything(redis) == before


async def test_damage_of_the_parent_makes_nothing(engine, redis):
    parent, _ = await engine.start_and_take({"a": []}, engine.worker())
    for damage in (
        lambda: redis.set(keys.children(parent.id), "x"),
        lambda: redis.hset(parent.key(":run"), "parent", "rubbish"),
        lambda: redis.hset(parent.key(":run"), "tree", "many"),
    ):
        damage()
        before = everything(redis)

        outcome, _ = await engine.start_child(parent, "a", CHAIN)

        assert outcome == "corrupt"
        assert everything(redis) == before
        redis.delete(keys.children(parent.id))
        redis.hdel(parent.key(":run"), "parent")


async def test_roots_too_many_for_one_call_are_left_to_the_caller(engine):
    parent, _ = await engine.start_and_take({"a": []}, engine.worker())

    outcome, child = await engine.start_child(parent, "a", {f"r{n}": [] for n in range(1_500)})

    assert outcome == "continue"
    assert child.state().continuations == ["advance"]


async def test_what_was_staged_and_removed_is_not_made(engine, store, redis, outcomes, monkeypatch):
    parent, _ = await engine.start_and_take({"a": []}, engine.worker())
    wide = {f"r{n}": [] for n in range(1_500)}
    stage = store.submissions._stage

    async def removed(execution_id, *arguments):
        outcome = await stage(execution_id, *arguments)
        await store.submissions.discard_staged(execution_id)
        return outcome

    monkeypatch.setattr(store.submissions, "_stage", removed)

    with pytest.raises(StoreUnavailable):
        await engine.start_child(parent, "a", wide)

    assert outcomes["start_children"] == [["closed"]]
    assert not redis.exists(keys.status(child_id(parent.id, "a", 1)))


async def test_the_events_of_a_child_name_its_parent(engine, redis):
    parent, _ = await engine.start_and_take({"a": []}, engine.worker())
    _, child = await engine.start_child(parent, "a", CHAIN)

    (entry,) = [one for _, one in redis.xrange(keys.EVENTS) if f"{child.id} " in str(one)]

    facts, _, more = next(text for text in entry.values()).partition("\n")
    assert facts.strip() == child.id
    assert orjson.loads(more) == {"parent": {"execution_id": parent.id, "node_id": "a"}}


async def test_what_is_not_saved_any_more_is_not_made(engine, redis):
    parent, _ = await engine.start_and_take({"a": []}, engine.worker())
    before = everything(redis)

    outcome, _ = await engine.start_child(parent, "a", CHAIN, pin=Pin("report", 1, False, "other"))

    assert outcome == "changed"
    assert everything(redis) == before


async def test_of_a_rerun_nothing_is_made_before_somebody_looked(engine, redis):
    parent, _ = await engine.start_and_take({"a": []}, engine.worker())
    redis.hset(parent.key(":run"), "rerun_failed", 1)
    before = everything(redis)

    outcome, _ = await engine.start_child(parent, "a", CHAIN)

    assert outcome == "rerun"
    assert everything(redis) == before
    assert (await engine.start_child(parent, "a", CHAIN, has_looked=True))[0] == "triggered"


async def test_a_child_waits_for_a_place_or_is_refused_one(engine, redis):
    outcomes = []
    for when_full in ("queue", "refuse"):
        document = {"name": when_full, "concurrency": {"when_full": when_full}}
        place = place_of(compiled({"a": []}, **document)[1].concurrency, {})
        for _ in "12":
            parent = await engine.start({"n": []})
            outcome, child = await engine.start_child(
                parent, "n", {"a": []}, document=document, place=place
            )
            outcomes.append(outcome)

    assert outcomes == ["triggered", "waiting", "triggered", "refused"]
    assert child.state().status is None
    assert redis.hget(parent.key(":run"), "children") is None


async def test_a_child_that_would_wait_for_one_above_it_is_not_made(engine):
    document = {"concurrency": {"max": 5}}
    place = place_of(compiled({"a": []}, **document)[1].concurrency, {})
    root = await engine.start({"n": []})
    _, child = await engine.start_child(root, "n", {"a": []}, document=document, place=place)

    _, grandchild = await engine.start_child(child, "a", {"x": []})

    outcome, made = await engine.start_child(
        grandchild, "x", {"a": []}, document=document, place=place
    )

    assert (outcome, made.state().status) == ("own", None)


async def start_together(store, redis, wanted, graph=CHAIN):
    """What becomes of these waits, whose children are asked for in one turn of the event loop."""
    definition, plan = compiled(graph)
    redis.hset(keys.saved_definition("report"), "digest:1", plan.digest)
    workflow = ChildWorkflow(
        definition, plan, Pin("report", 1, is_latest=False, digest=plan.digest)
    )
    starts = (
        store.submissions.start_child(workflow, ChildStart(parent, child_id(*parent)))
        for parent in wanted
    )
    return await asyncio.gather(*starts)


async def test_children_that_are_asked_for_together_are_made_by_one_call(
    engine, store, redis, outcomes
):
    worker = engine.worker()
    first, _ = await engine.start_and_take({"a": [], "b": [], "c": []}, worker)
    second, _ = await engine.start_and_take({"a": []}, worker)
    gone, _ = await engine.start_and_take({"a": []}, worker)
    await store.lifecycle.cancel_execution(gone.id)
    wanted = [Parent(first.id, one, 1) for one in "abb"]
    wanted += [Parent(second.id, "a", 1), Parent(first.id, "c", 2), Parent(gone.id, "a", 1)]

    said = await start_together(store, redis, wanted, {"x": []})

    assert said == ["triggered", "triggered", "exists", "triggered", "ended", "ended"]
    assert outcomes["start_children"] == [said]
    assert first.state().counters == {"remaining": "3", "tree": "3", "children": "2"}
    assert second.state().counters == {"remaining": "1", "tree": "2", "children": "1"}
    assert redis.hgetall(keys.children(first.id)) == {
        child_id(first.id, one, 1): f"{one} 1" for one in "ab"
    }
    made = [child_id(first.id, "a", 1), child_id(first.id, "b", 1), child_id(second.id, "a", 1)]
    assert [redis.hget(f"workflow:{one}:run", "parent") for one in made] == [
        *(f"{first.id} {one} 1 {first.id} 2" for one in "ab"),
        f"{second.id} a 1 {second.id} 2",
    ]
    assert [entry.execution_id for entry in await worker.take()] == made


async def test_a_tree_that_is_full_takes_the_first_of_those_that_are_asked_for_together(
    engine, store, redis
):
    root, _ = await engine.start_and_take({one: [] for one in "abc"}, engine.worker())
    redis.hset(root.key(":run"), "tree", 9_998)

    said = await start_together(store, redis, [Parent(root.id, one, 1) for one in "abc"])

    assert said == ["triggered", "triggered", "large"]
    assert redis.hget(root.key(":run"), "tree") == "10000"
    assert redis.hlen(keys.children(root.id)) == 2


async def test_one_call_makes_no_more_nodes_than_it_may(engine, store, redis, outcomes):
    root, _ = await engine.start_and_take({one: [] for one in "abc"}, engine.worker())
    wide = {"first": [], **{f"n{number}": ["first"] for number in range(499)}}

    await start_together(store, redis, [Parent(root.id, one, 1) for one in "abc"], wide)

    assert [len(said) for said in outcomes["start_children"]] == [2, 1]


@pytest.mark.parametrize("key", ["workflow:tasks", keys.EXECUTIONS])
async def test_a_damaged_key_of_all_makes_no_child_and_leaves_no_trace_of_one(
    engine, store, redis, key
):
    root, _ = await engine.start_and_take({one: [] for one in "ab"}, engine.worker())
    whole = redis.dump(key)
    redis.set(key, "x")
    before = everything(redis)

    with pytest.raises(StoreError):
        await start_together(store, redis, [Parent(root.id, one, 1) for one in "ab"])

    redis.delete(keys.saved_definition("report"))
    assert everything(redis) == before
    redis.restore(key, 0, whole, replace=True)
    assert await start_together(store, redis, [Parent(root.id, "a", 1)]) == ["triggered"]
