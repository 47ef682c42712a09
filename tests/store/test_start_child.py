"""start_child.lua: a node has one child for each of its waits, in the state its parent is in."""

from __future__ import annotations

import orjson
import pytest

from flowd.errors import StoreUnavailable
from flowd.store.making import Pin
from flowd.store.redis import keys
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

    assert outcomes["start_child"] == ["closed"]
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
