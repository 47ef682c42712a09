"""admit_nodes.lua: who gets a place of a limit, and who waits for one."""

from __future__ import annotations

import asyncio

import pytest

from flowd.orchestrator.executor import cancel_execution, pause_execution, resume_execution
from flowd.store import limits
from flowd.store.limits import Limit
from flowd.store.redis import keys
from tests.store.engine import WAIT_MAX_S, everything, until
from tests.store.limits import (
    BROAD,
    ONE,
    THREE,
    ask,
    holders,
    holding,
    start,
    waiters,
)

QUEUES = ("urgent", "default", "low")


def in_queue(queue, *node_ids):
    return {one: {"limit": "api", "queue": queue} for one in node_ids}


async def test_no_more_hold_a_place_than_there_are_and_the_others_wait_outside(engine, redis):
    worker, execution, (a,) = await start(engine, max=1)

    assert (holders(redis), waiters(redis)) == (["a"], ["b", "c"])
    state = execution.state()
    assert state.nodes == {"a": "QUEUED", "b": "WAITING", "c": "WAITING"}
    assert state.held == {"w1": ["a#1"]}
    assert state.waits == {"b": "0 slot api", "c": "0 slot api"}
    assert redis.hgetall(keys.places(execution.id)) == {"a": "api", "b": "api", "c": "api"}
    assert await worker.complete(a) == ["completed"]


async def test_who_holds_a_place_is_admitted_again_without_another(engine, redis):
    worker, _, (a,) = await start(engine, max=1)
    await engine.store.tasks.requeue_entry(a.name, "w1", is_death=True)
    again = await worker.take_one()

    assert (await ask(engine, [again]))[1] == ["admitted"]
    assert (holders(redis), waiters(redis)) == (["a"], ["b", "c"])


async def test_a_limit_that_nobody_has_made_holds_nobody_back_and_counts_all_the_same(
    engine, redis
):
    worker = engine.worker()
    _, entries = await engine.start_and_take(THREE, worker)
    assert (await ask(engine, entries))[1] == ["admitted"] * 3

    await engine.store.tasks.limits.put(Limit("api", max=1))
    _, (late, *_) = await engine.start_and_take(THREE, worker)
    assert (await ask(engine, [late]))[1] == ["waiting"]
    await worker.complete(*holding(entries[:2]))
    assert waiters(redis) == ["a"]
    await worker.complete(*holding(entries[2:]))
    assert (holders(redis), waiters(redis)) == (["a"], [])


async def test_who_comes_later_does_not_overtake_those_who_wait(engine, redis):
    worker, _, _ = await start(engine, per_s=0.001)
    assert (holders(redis), waiters(redis)) == (["a"], ["b", "c"])
    # The time of the next start has come, and no scheduler has looked.
    redis.delete("flowd:limit:api:rate")
    late, entries = await engine.start_and_take(THREE, worker)

    assert (await ask(engine, entries))[1] == ["waiting"] * 3
    assert waiters(redis) == ["b", "c", "a", "b", "c"]
    await engine.store.tasks.limits.check_slice("")
    assert (late.states(), waiters(redis)) == ({"WAITING": 3}, ["c", "a", "b", "c"])


async def test_who_was_queued_first_is_next_also_when_it_asks_last(engine, redis):
    await engine.store.tasks.limits.put(Limit("api", max=0))
    worker = engine.worker()
    first, (early,) = await engine.start_and_take(ONE, worker)
    second, (late,) = await engine.start_and_take(ONE, worker)
    await until(lambda: milliseconds(redis) > late.queued_ms)
    await engine.store.tasks.requeue_entry(early.name, "w1")

    assert (await ask(engine, [await worker.take_one()]))[1] == ["waiting"]
    assert (await ask(engine, [late]))[1] == ["waiting"]

    assert redis.zrange(keys.waiters("api"), 0, -1) == [f"{second.id} a", f"{first.id} a"]


async def test_who_is_in_an_earlier_queue_of_the_worker_that_asks_is_next(engine, redis):
    await engine.store.tasks.limits.put(Limit("api", max=0))
    worker = engine.worker(queues=QUEUES)
    _, entries = await engine.start_and_take(in_queue("low", "l"), worker)
    await ask(engine, entries, queues=QUEUES)
    _, entries = await engine.start_and_take(in_queue("default", "d"), worker)
    await ask(engine, entries, queues=QUEUES)
    _, entries = await engine.start_and_take(in_queue("urgent", "u"), worker)
    await ask(engine, entries, queues=QUEUES)

    assert waiters(redis) == ["u", "d", "l"]


async def test_for_who_reads_it_alone_a_queue_is_the_first(engine, redis):
    await engine.store.tasks.limits.put(Limit("api", max=0))
    several, alone = engine.worker("w1", QUEUES), engine.worker("w2", ("low",))
    _, entries = await engine.start_and_take(in_queue("default", "d"), several)
    await ask(engine, entries, queues=QUEUES)
    _, entries = await engine.start_and_take(in_queue("low", "l"), alone)
    await ask(engine, entries, queues=("low",))

    assert waiters(redis) == ["l", "d"]


async def test_what_is_low_moves_at_its_share_however_much_is_urgent(engine, redis, monkeypatch):
    """For each that ends two urgent ones come, and a low one."""
    monkeypatch.setattr(limits, "QUEUE_STEP_MS", 40)
    await engine.store.tasks.limits.put(Limit("api", max=1))
    worker = engine.worker(queues=QUEUES)
    turns, started, holder = {}, [], None
    async with asyncio.timeout(WAIT_MAX_S):
        while [node_id for _, node_id in started].count("l") < 5:
            for graph in (in_queue("urgent", "u", "v"), in_queue("low", "l")):
                _, entries = await engine.start_and_take(graph, worker)
                admitted, _ = await ask(engine, entries, queues=QUEUES)
                for one in entries:
                    turns[member_of(one)] = one.queued_ms + 40 * QUEUES.index(one.queue)
                holder = admitted[0] if admitted else holder
            started.append(member_of(holder))
            assert {"u", "v"} & set(waiters(redis)), "nothing urgent waits"
            await worker.complete(holder)
            (holder,) = await worker.take()

    order = [turns[one] for one in started]
    assert order == sorted(order)


def member_of(entry):
    return entry.execution_id, entry.node_id


def milliseconds(redis):
    seconds, micros = redis.time()
    return 1000 * seconds + micros // 1000


async def test_who_waits_keeps_its_turn_whatever_its_last_attempt_says(engine, redis):
    await engine.store.tasks.limits.put(Limit("api", max=1))
    worker = engine.worker()
    _, (a, b, c) = await engine.start_and_take(THREE, worker)
    assert (await ask(engine, [a, b, c]))[1] == ["admitted", "waiting", "waiting"]

    assert await worker.complete(*holding([b])) == ["stale"]

    assert (holders(redis), waiters(redis)) == (["a"], ["b", "c"])


async def test_each_key_has_places_of_its_own(engine, redis):
    await engine.store.tasks.limits.put(Limit("api", max=1))
    worker = engine.worker()
    _, (a, b, c) = await engine.start_and_take(THREE, worker)

    assert (await ask(engine, [a], "api/x"))[1] == ["admitted"]
    assert (await ask(engine, [b], "api/y"))[1] == ["admitted"]
    assert (await ask(engine, [c], "api/x"))[1] == ["waiting"]
    assert redis.zrange(keys.PLACES, 0, -1) == ["api/x", "api/y"]


async def test_an_attempt_that_was_taken_away_gets_no_place(engine, redis):
    await engine.store.tasks.limits.put(Limit("api", max=1))
    worker = engine.worker()
    _, (a, *_) = await engine.start_and_take(THREE, worker)
    await engine.store.tasks.requeue_entry(a.name, "w1")

    assert (await ask(engine, [a]))[1] == ["stale"]
    assert (holders(redis), waiters(redis)) == ([], [])


async def test_a_node_of_a_cancelled_execution_gets_no_place(engine, redis):
    await engine.store.tasks.limits.put(Limit("api", max=1))
    worker = engine.worker()
    execution, (a, *_) = await engine.start_and_take(THREE, worker)
    await cancel_execution(engine.store, execution.id)

    assert (await ask(engine, [a]))[1] == ["ended"]
    assert holders(redis) == []
    assert "a#1" not in execution.state().held.get("w1", [])


async def test_a_worker_that_dies_keeps_the_place_for_its_node(engine, redis):
    worker, _, (a,) = await start(engine, max=1)
    await worker.claim(a)
    outcome, _ = await engine.store.tasks.requeue_entry(a.name, "w1", is_death=True)

    assert outcome == "requeued"
    assert (holders(redis), waiters(redis)) == (["a"], ["b", "c"])
    # What the dead one says after all changes nothing.
    assert await worker.complete(a) == ["stale"]
    assert (holders(redis), waiters(redis)) == (["a"], ["b", "c"])


async def test_a_waiter_that_is_cancelled_lets_nobody_in(engine, redis):
    worker, _, _ = await start(engine, max=1)
    others, entries = await engine.start_and_take(THREE, worker)
    assert (await ask(engine, entries))[1] == ["waiting"] * 3

    await cancel_execution(engine.store, others.id)

    assert (holders(redis), waiters(redis)) == (["a"], ["b", "c"])
    assert others.states() == {"CANCELLED": 3}
    assert others.state().waits == {}
    assert not redis.exists(keys.places(others.id))


async def test_a_waiter_whose_execution_is_paused_is_parked_and_the_next_one_begins(engine, redis):
    worker, execution, (a,) = await start(engine, max=1)
    others, entries = await engine.start_and_take(THREE, worker)
    await ask(engine, entries)
    await pause_execution(engine.store, execution.id)

    assert await worker.complete(a) == ["completed"]

    assert execution.state().parked == {"b": "0", "c": "0"}
    assert redis.zrange(keys.holders("api"), 0, -1) == [f"{others.id} a"]
    await resume_execution(engine.store, execution.id)
    again = [one for one in await worker.take() if one.execution_id == execution.id]
    assert (await ask(engine, again))[1] == ["waiting", "waiting"]


async def test_a_rate_lets_a_burst_go_and_says_when_the_next_is_due(engine, redis):
    worker, _, admitted = await start(engine, per_s=0.001, burst=2)

    assert len(admitted) == 2
    assert waiters(redis) == ["c"]
    now_ms = 1000 * redis.time()[0]
    assert 900_000 < redis.zscore(keys.LIMITS_DUE, "api") - now_ms < 1_001_000
    # Who has started counts, whether it has ended or not.
    await worker.complete(*admitted)
    assert waiters(redis) == ["c"]
    assert 900 < (await engine.store.retries.dispatch()).next_in_s < 1001


async def test_the_head_of_a_rate_starts_when_it_is_due(engine, redis):
    await start(engine, per_s=50)
    assert waiters(redis) == ["b", "c"]

    while waiters(redis):
        await engine.store.retries.dispatch()
    assert sorted(holders(redis)) == ["a", "b", "c"]
    since_ms = [
        int(score) for _, score in redis.zrange(keys.holders("api"), 0, -1, withscores=True)
    ]
    assert since_ms[2] - since_ms[0] >= 39


async def test_a_call_that_is_made_again_counts_against_the_rate(engine, redis):
    worker, _, (a,) = await start(engine, per_s=0.001)
    due_ms = float(redis.get("flowd:limit:api:rate"))
    await engine.store.tasks.requeue_entry(a.name, "w1", is_death=True)

    assert (await ask(engine, [await worker.take_one()]))[1] == ["admitted"]
    assert float(redis.get("flowd:limit:api:rate")) - due_ms == pytest.approx(1_000_000, abs=10_000)


async def test_no_key_is_left_of_what_has_ended(engine, redis):
    worker, execution, admitted = await start(engine, BROAD, max=7, per_s=1_000_000)
    await worker.complete(*admitted)
    while entries := await worker.take(100):
        await worker.complete(*entries)
        await engine.store.retries.dispatch()

    assert execution.state().status == "COMPLETED"
    left = [key for key in everything(redis) if "limit" in key or ":places" in key]
    assert [key for key in left if not key.endswith(":rate")] == ["flowd:limits"]


async def test_what_is_damaged_of_a_limit_is_set_aside_and_stops_no_worker(engine, redis):
    redis.set(keys.holders("api"), "a hand was here")
    redis.hset(keys.waiters("api"), "a hand", "was here")

    _, _, (a,) = await start(engine, max=1)

    assert (a.node_id, holders(redis), waiters(redis)) == ("a", ["a"], ["b", "c"])
    assert sorted(key.split(":", 3)[3] for key in redis.scan_iter("flowd:damaged:*")) == [
        keys.holders("api"),
        keys.waiters("api"),
    ]
