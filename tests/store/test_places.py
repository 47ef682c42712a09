"""Places of a `concurrency`: who has one, who waits, and that each way out gives it back."""

from __future__ import annotations

import asyncio

import orjson
import pytest

from flowd.errors import InvalidRequest
from flowd.orchestrator.executor import (
    cancel_execution,
    pause_execution,
    resume_execution,
    trigger_workflow,
)
from flowd.orchestrator.runs import run_each
from flowd.store.making import Runs
from flowd.store.redis import keys
from flowd.workflow.concurrency import LimitReached, place_of
from tests.store.engine import CHAIN, compiled, everything

ONE = {"a": []}
KEYED = {"key": "{{ input.customer }}", "max": 1, "when_full": "queue"}
ACME = orjson.dumps({"customer": "acme"})
AN_ID = "0123456789ab0123456789ab"
LAST = {"a": [], "z": {"finally": True}}


def said(when_full="queue", most=1):
    return {"key": "{{ input.customer }}", "max": most, "when_full": when_full}


async def ask(engine, graph=ONE, given=ACME, **concurrency):
    """An execution that was triggered."""
    execution = await engine.submit(graph, concurrency=said(**concurrency))
    await trigger_workflow(engine.store, execution.id, given)
    return execution


def statuses(*executions):
    return [one.state().status for one in executions]


def held(redis):
    return [one.rpartition(" ")[2] for one in redis.zrange(keys.PLACE_HOLDERS, 0, -1)]


def waiting(redis):
    return [one.rpartition(" ")[2] for one in redis.zrange(keys.PLACE_WAITERS, 0, -1)]


async def test_of_one_key_one_runs_and_the_others_wait_in_the_order_they_asked(engine, redis):
    first, second, third = [await ask(engine) for _ in range(3)]

    assert statuses(first, second, third) == ["RUNNING", "PENDING", "PENDING"]
    assert (held(redis), waiting(redis)) == ([first.id], [second.id, third.id])
    assert second.state().queued == []
    assert not redis.sismember(keys.ACTIVE, second.id)


async def test_other_keys_and_other_workflows_do_not_wait(engine):
    await ask(engine)
    other = await ask(engine, given=b'{"customer":"other"}')
    another = await engine.submit(ONE, name="another", concurrency=said())
    await trigger_workflow(engine.store, another.id, ACME)

    assert statuses(other, another) == ["RUNNING", "RUNNING"]


async def test_a_waiter_keeps_its_input_and_hears_of_a_second_trigger_nothing(engine, store, redis):
    await ask(engine)
    second = await ask(engine, given=b'{"customer":"acme","n":1}')
    await trigger_workflow(store, second.id, b'{"customer":"other"}')

    assert statuses(second) == ["PENDING"]
    assert redis.get(keys.given_input(second.id)) == '{"customer":"acme","n":1}'
    assert waiting(redis) == [second.id]


async def test_a_key_that_cannot_be_made_is_refused_before_anything_is_written(
    engine, store, redis
):
    execution = await engine.submit(ONE, concurrency=said())
    before = everything(redis)

    for given in (b"", b'{"customer":null}', b'{"customer":["acme"]}'):
        with pytest.raises(InvalidRequest, match=r"concurrency\.key cannot be made of this"):
            await trigger_workflow(store, execution.id, given)

    assert everything(redis) == before


async def test_the_input_of_the_workflow_itself_and_a_rerun_make_the_key_too(engine, store):
    execution = await engine.submit(ONE, concurrency=said(), input={"customer": "acme"})
    await trigger_workflow(store, execution.id)
    second = await ask(engine)

    assert statuses(execution, second) == ["RUNNING", "PENDING"]


async def test_without_a_key_the_workflow_has_the_places_as_a_whole(engine, store):
    executions = [await engine.submit(ONE, concurrency={"max": 2}) for _ in range(3)]
    for one in executions:
        await trigger_workflow(store, one.id)

    assert statuses(*executions) == ["RUNNING", "RUNNING", "PENDING"]


async def _complete(_engine, _store, _execution, worker, entries):
    await worker.complete(*entries)


async def _fail(_engine, _store, _execution, worker, entries):
    await worker.fail(*entries)


async def _cancel(_engine, store, execution, _worker, _entries):
    await cancel_execution(store, execution.id)


async def _cancel_paused(_engine, store, execution, _worker, _entries):
    await pause_execution(store, execution.id)
    await cancel_execution(store, execution.id)


async def _corrupt(_engine, store, execution, _worker, _entries):
    await store.executions.fail_execution(execution.id, "a hand was in it")


WAYS_OUT = {
    "completed": _complete,
    "failed": _fail,
    "cancelled": _cancel,
    "cancelled while paused": _cancel_paused,
    "corrupt": _corrupt,
}


@pytest.mark.parametrize("way", WAYS_OUT)
async def test_a_slot_comes_back_on_every_way_out_and_exactly_one_waiter_starts(
    engine, store, redis, way
):
    worker = engine.worker()
    first = await ask(engine)
    second, third = await ask(engine), await ask(engine)
    entries = await worker.take()

    await WAYS_OUT[way](engine, store, first, worker, entries)

    assert statuses(second, third) == ["RUNNING", "PENDING"]
    assert (held(redis), waiting(redis)) == ([second.id], [third.id])
    assert second.state().queued == ["a#1"]
    assert redis.sismember(keys.ACTIVE, second.id)
    assert not redis.hexists(second.key(":run"), "waiting")


async def test_one_that_was_paused_keeps_its_place(engine, store, redis):
    first, second = await ask(engine), await ask(engine)
    await pause_execution(store, first.id)
    assert statuses(first, second) == ["PAUSED", "PENDING"]

    await resume_execution(store, first.id)
    await engine.finish(engine.worker())

    assert statuses(first, second) == ["COMPLETED", "COMPLETED"]
    assert (held(redis), waiting(redis)) == ([], [])


@pytest.mark.parametrize("way", ["cancelled", "deleted"])
async def test_of_a_waiter_that_is_taken_away_none_starts(engine, store, redis, way):
    first, second, third = [await ask(engine) for _ in range(3)]

    if way == "cancelled":
        await cancel_execution(store, second.id)
    else:
        await store.finished.delete_execution(second.id)

    assert statuses(first, third) == ["RUNNING", "PENDING"]
    assert (held(redis), waiting(redis)) == ([first.id], [third.id])
    await engine.finish(engine.worker())
    assert statuses(first, third) == ["COMPLETED", "COMPLETED"]


async def test_an_end_that_is_said_twice_starts_one_waiter(engine):
    worker = engine.worker()
    await ask(engine)
    second, third = await ask(engine), await ask(engine)
    (entry,) = await worker.take()
    await worker.complete(entry)
    await worker.complete(entry)

    assert statuses(second, third) == ["RUNNING", "PENDING"]


async def test_who_is_cancelling_keeps_its_place_until_its_finally_has_run(engine, store):
    worker = engine.worker()
    first = await ask(engine, LAST)
    second = await ask(engine, LAST)
    (entry,) = await worker.take()
    await cancel_execution(store, first.id)
    assert statuses(first, second) == ["CANCELLING", "PENDING"]

    await worker.complete(entry)
    assert statuses(first, second) == ["RUNNING", "PENDING"]
    await worker.complete(*await worker.take())

    assert statuses(first, second) == ["CANCELLED", "RUNNING"]


async def test_one_that_is_refused_stays_as_it_was_and_can_be_triggered_later(engine, store, redis):
    first = await ask(engine, when_full="refuse")
    second = await engine.submit(ONE, concurrency=said("refuse"))
    before = everything(redis)

    with pytest.raises(LimitReached, match=f"'acme': {first.id!r} has not ended"):
        await trigger_workflow(store, second.id, ACME)

    assert everything(redis) == before
    await engine.finish(engine.worker())
    await trigger_workflow(store, second.id, ACME)
    assert statuses(first, second) == ["COMPLETED", "RUNNING"]


async def test_the_newest_takes_the_place_of_the_one_that_runs(engine, redis):
    first = await ask(engine, when_full="replace")
    second = await ask(engine, when_full="replace")

    assert statuses(first, second) == ["CANCELLED", "RUNNING"]
    assert first.state().nodes == {"a": "CANCELLED"}
    assert (held(redis), waiting(redis)) == ([second.id], [])


async def test_while_the_replaced_one_cleans_up_only_the_newest_waits(engine, redis):
    worker = engine.worker()
    first = await ask(engine, LAST, when_full="replace")
    (entry,) = await worker.take()
    second = await ask(engine, LAST, when_full="replace")
    third = await ask(engine, LAST, when_full="replace")
    assert statuses(first, second, third) == ["CANCELLING", "CANCELLED", "PENDING"]
    assert (held(redis), waiting(redis)) == ([first.id], [third.id])

    await worker.complete(entry)
    await worker.complete(*await worker.take())

    assert statuses(first, third) == ["CANCELLED", "RUNNING"]


async def test_of_several_places_the_oldest_is_replaced(engine, redis):
    first, second, third = [await ask(engine, when_full="replace", most=2) for _ in range(3)]

    assert sorted(statuses(first, second, third)) == ["CANCELLED", "RUNNING", "RUNNING"]
    assert statuses(third) == ["RUNNING"]
    assert len(held(redis)) == 2


@pytest.mark.parametrize("has_begun", [False, True], ids=["cancelling", "in_finally"])
async def test_for_one_that_makes_room_already_nobody_else_has_to(engine, store, redis, has_begun):
    worker = engine.worker()
    first = await ask(engine, LAST, when_full="replace", most=2)
    await worker.take()
    second = await ask(engine, LAST, when_full="replace", most=2)
    (entry,) = await worker.take()
    await cancel_execution(store, second.id)
    if has_begun:
        await worker.complete(entry)

    third = await ask(engine, LAST, when_full="replace", most=2)

    assert statuses(first, third) == ["RUNNING", "PENDING"]
    assert redis.hget(keys.METRICS, "concurrency replaced") == "0"
    assert waiting(redis) == [third.id]


async def run(store, inputs, **concurrency):
    """The ids of executions that are made and started in one step."""
    definition, plan = compiled(ONE, concurrency=said(**concurrency))
    ids = [f"{at:012x}{0:012x}" for at in range(1, len(inputs) + 1)]
    given = [(one, orjson.dumps({"customer": name})) for one, name in zip(ids, inputs, strict=True)]
    await run_each(store, definition, plan, Runs(given, claimant=AN_ID))
    return ids


async def test_many_that_are_run_at_once_get_a_place_each_or_wait(store, redis):
    ids = await run(store, ["acme", "other", "acme"])

    found = redis.mget([keys.status(one) for one in ids])
    assert found == ["RUNNING", "RUNNING", "PENDING"]
    assert (sorted(held(redis)), waiting(redis)) == (ids[:2], ids[2:])


async def test_of_many_that_are_run_at_once_only_those_without_a_place_are_refused(store, redis):
    with pytest.raises(LimitReached, match="1 of 3 executions are not run") as refused:
        await run(store, ["acme", "other", "acme"], when_full="refuse")

    first, second, third = refused.value.execution_ids
    assert third is None
    assert redis.mget([keys.status(first), keys.status(second)]) == ["RUNNING", "RUNNING"]
    assert redis.zcard(keys.EXECUTIONS) == 2


async def test_of_many_inputs_the_one_without_a_key_is_named_and_none_is_run(store, redis):
    with pytest.raises(InvalidRequest, match=r"inputs\[1\]"):
        await run(store, ["acme", None])

    assert everything(redis) == {}


async def test_a_child_waits_for_its_place_and_starts_as_its_parent_is(engine, store, redis):
    parent = await engine.start(ONE)
    first = await ask(engine)
    document = {"concurrency": said()}
    place = place_of(compiled(ONE, **document)[1].concurrency, {"customer": "acme"})
    outcome, child = await engine.start_child(parent, "a", ONE, document=document, place=place)
    assert (outcome, statuses(child)) == ("waiting", ["PENDING"])

    await pause_execution(store, parent.id)
    await cancel_execution(store, first.id)

    assert (held(redis), statuses(child)) == ([child.id], ["PAUSED"])


async def test_a_child_that_waits_is_cancelled_with_its_parent(engine, store, redis):
    parent = await engine.start({"a": {"handler": "workflow", "config": {"name": "x"}}})
    first = await ask(engine)
    document = {"concurrency": said()}
    place = place_of(compiled(ONE, **document)[1].concurrency, {"customer": "acme"})
    _, child = await engine.start_child(parent, "a", ONE, document=document, place=place)

    await cancel_execution(store, parent.id)

    assert statuses(first, child) == ["RUNNING", "CANCELLED"]
    assert waiting(redis) == []


async def test_a_child_that_would_wait_for_its_own_parent_is_not_made(engine, redis):
    parent = await ask(engine)
    document = {"concurrency": said()}
    place = place_of(compiled(ONE, **document)[1].concurrency, {"customer": "acme"})
    before = everything(redis)

    outcome, _ = await engine.start_child(parent, "a", ONE, document=document, place=place)

    assert outcome == "own"
    assert everything(redis) == before


async def test_a_waiter_that_was_damaged_is_in_nobodys_way(engine, store, redis):
    first, second, third = [await ask(engine) for _ in range(3)]
    redis.set(second.key(":run"), "a hand was in it")

    await cancel_execution(store, first.id)

    assert (held(redis), waiting(redis)) == ([third.id], [])


async def test_sets_that_are_damaged_stop_no_end(engine, redis):
    worker = engine.worker()
    first = await ask(engine)
    entries = await worker.take()
    for key in (keys.PLACE_HOLDERS, keys.PLACE_WAITERS):
        redis.set(key, "a hand was in it")

    await worker.complete(*entries)

    assert statuses(first) == ["COMPLETED"]


async def test_five_at_a_time_of_two_hundred_that_ask_at_once(engine, store, redis):
    executions = [await engine.submit(ONE, concurrency=said(most=5)) for _ in range(200)]
    await asyncio.gather(*(trigger_workflow(store, one.id, ACME) for one in executions))
    worker = engine.worker()
    left = 200
    while left:
        running = [one for one in executions if one.state().status == "RUNNING"]
        assert len(running) == len(held(redis)) == min(5, left)
        await worker.complete(*await worker.take())
        left -= len(running)

    assert set(statuses(*executions)) == {"COMPLETED"}
    assert redis.exists(keys.PLACE_HOLDERS, keys.PLACE_WAITERS) == 0


async def test_a_chain_gives_its_place_back_with_its_last_node_only(engine):
    worker = engine.worker()
    first, second = await ask(engine, CHAIN), await ask(engine, CHAIN)
    for _ in "ab":
        await worker.complete(*await worker.take())
        assert statuses(first, second) == ["RUNNING", "PENDING"]
    await worker.complete(*await worker.take())

    assert statuses(first, second) == ["COMPLETED", "RUNNING"]


async def test_who_asks_comes_behind_those_that_wait_also_where_a_place_is_free(engine, redis):
    first, second = await ask(engine), await ask(engine)
    redis.zrem(keys.PLACE_HOLDERS, *redis.zrange(keys.PLACE_HOLDERS, 0, -1))

    third = await ask(engine)

    assert statuses(first, second, third) == ["RUNNING", "PENDING", "PENDING"]
    assert waiting(redis) == [second.id, third.id]


async def test_who_asks_when_the_clock_was_put_back_comes_behind_those_that_wait(engine, redis):
    redis.hset(keys.CLOCK, "ahead_ms", 3_600_000)
    first, second = [await ask(engine) for _ in range(2)]
    redis.delete(keys.CLOCK)

    later = [await ask(engine) for _ in range(3)]

    assert held(redis) == [first.id]
    assert waiting(redis) == [one.id for one in (second, *later)]
