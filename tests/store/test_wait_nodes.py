"""wait_nodes.lua: a node that waits holds no entry and no worker until what it waits for comes."""

from __future__ import annotations

import pytest

from flowd.store.redis import keys
from tests.store.engine import CHAIN, HOUR_MS, State, everything

WAITING_CHAIN = {"a": "WAITING", "b": "PENDING", "c": "PENDING"}


async def test_a_node_that_waits_for_a_date_leaves_the_stream_until_then(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)

    assert await worker.wait(a) == "waiting"

    assert execution.state() == State(
        status="RUNNING",
        nodes=WAITING_CHAIN,
        counters={"remaining": "3", "waits:a": "1"},
        attempts={"a": "#1 ended on w1"},
        waiting=["a"],
        waits={"a": "1 date"},
    )
    due_ms = redis.zscore(keys.RETRIES, f"{execution.id} a")
    assert HOUR_MS - 10_000 < due_ms - 1000 * redis.time()[0] < HOUR_MS + 1_001
    assert redis.hget(execution.key(":waits"), "a").split(" ")[3] == f"{due_ms:.0f}"


async def test_a_node_that_waits_for_a_moment_stands_among_the_alarms_at_that_time(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)

    assert await worker.wait(a, "moment", due_ms=4_102_444_800_000) == "waiting"

    state = execution.state()
    assert (state.alarms, state.waiting, state.waits) == (["a"], [], {"a": "1 moment"})
    assert redis.zscore(keys.ALARMS, f"{execution.id} a") == 4_102_444_800_000


async def test_a_node_that_waits_for_a_signal_for_ever_has_no_date_but_a_text(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)

    assert await worker.wait(a, "signal", text="Ship it?") == "waiting"

    state = execution.state()
    assert (state.alarms, state.waiting) == ([], [])
    assert state.waits == {"a": "1 signal Ship it?"}


async def test_what_has_come_before_the_wait_puts_the_node_back_at_once(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    assert (
        await engine.store.tasks.waits.wake(execution.id, "a", "signal", "{}")
    ).outcome == "kept"

    assert await worker.wait(a, "signal", due_ms=HOUR_MS) == "woken"

    assert execution.state() == State(
        status="RUNNING",
        nodes={**WAITING_CHAIN, "a": "QUEUED"},
        counters={"remaining": "3", "waits:a": "1"},
        attempts={"a": "#2 queued"},
        queued=["a#2"],
        decisions={"a": "1 signal {}"},
    )
    assert (await worker.take_one()).waits == 1


async def test_what_has_come_before_is_kept_while_the_execution_is_paused(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await engine.store.tasks.waits.wake(execution.id, "a", "signal")
    await engine.store.lifecycle.pause_execution(execution.id)

    assert await worker.wait(a, "signal") == "woken"

    state = execution.state()
    assert (state.nodes["a"], state.parked, state.queued) == ("PENDING", {"a": "0"}, [])
    await engine.store.lifecycle.resume_execution(execution.id)
    assert (await worker.take_one()).waits == 1


async def test_a_decision_about_an_earlier_wait_does_not_end_the_next(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, due_ms=0)
    await store.retries.dispatch()
    again = await worker.take_one()

    assert await worker.wait(again, number=2) == "waiting"

    state = execution.state()
    assert (state.waits, state.decisions) == ({"a": "2 date"}, {"a": "1 date "})


async def test_failures_of_the_call_before_are_forgotten(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    run = execution.key(":run")
    redis.hset(run, mapping={"failures:a": "2", "error:a": "boom", "report:a": "{}"})

    await worker.wait(a, due_ms=0)

    assert execution.state().counters == {"remaining": "3", "waits:a": "1"}
    await engine.store.retries.dispatch()
    assert (await worker.take_one()).failures == 0


async def test_said_again_after_a_lost_reply_it_is_stale_and_changes_nothing(engine, redis):
    worker = engine.worker()
    _, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a)
    before = everything(redis)

    assert await worker.wait(a) == "stale"

    assert everything(redis) == before


@pytest.mark.parametrize("end", ["cancel", "fail"])
async def test_in_an_execution_that_has_ended_nothing_waits(engine, end):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    if end == "cancel":
        await engine.store.lifecycle.cancel_execution(execution.id)
    else:
        await engine.store.executions.fail_execution(execution.id, "damaged")

    assert await worker.wait(a) == "ended"

    state = execution.state()
    assert (state.waiting, state.waits, state.held) == ([], {}, {})


async def test_only_a_date_before_all_others_rings_the_bell(engine, redis):
    worker = engine.worker()
    _, entries = await engine.start_and_take({"a": [], "b": [], "c": []}, worker)
    await worker.wait(entries[0], due_ms=5_000)
    assert redis.llen(keys.RETRIES_WAKEUP) == 1
    redis.delete(keys.RETRIES_WAKEUP)

    await worker.wait(entries[1])
    assert redis.llen(keys.RETRIES_WAKEUP) == 0

    await worker.wait(entries[2], "moment", due_ms=1)
    assert redis.llen(keys.RETRIES_WAKEUP) == 1


async def test_its_events_say_what_it_waits_for_and_what_woke_it(engine, redis):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    await worker.wait(a, due_ms=0)
    await engine.store.retries.dispatch()

    happened = {
        what: text
        for _, fields in redis.xrange(keys.EVENTS)
        for what, text in fields.items()
        if what in ("node.waiting", "node.woken")
    }
    assert happened["node.waiting"].startswith(f"{execution.id} a 1 ")
    assert happened["node.waiting"].endswith('\n{"waits_for":"date"}')
    assert happened["node.woken"] == f'{execution.id} a\n{{"woken_by":"date"}}'


async def test_waits_that_travel_together_are_one_call_and_each_comes_to_its_own(
    engine, store, outcomes
):
    worker, other = engine.worker(), engine.worker("w2")
    first, (a, b, c) = await engine.start_and_take({one: [] for one in "abc"}, worker)
    second, (d,) = await engine.start_and_take({"d": ["c"], "c": []}, worker)
    gone, (e,) = await engine.start_and_take({"e": []}, worker)
    await store.tasks.waits.wake(first.id, "b", "signal", "{}")
    await other.complete(c)
    await store.lifecycle.cancel_execution(gone.id)

    said = await worker.wait_together([a, b, c, d, e], "signal", text="Ship it?")

    assert said == ["waiting", "woken", "stale", "waiting", "ended"]
    assert outcomes["wait_nodes"] == [said]
    state = first.state()
    assert state.nodes == {"a": "WAITING", "b": "QUEUED", "c": "COMPLETED"}
    assert state.waits == {"a": "1 signal Ship it?"}
    assert state.counters == {"remaining": "2", "waits:a": "1", "waits:b": "1"}
    assert state.queued == ["b#2"]
    assert second.state().waits == {"c": "1 signal Ship it?"}
    assert gone.state().waits == {}


async def test_an_entry_that_stands_twice_among_waits_is_one_wait(engine):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": []}, worker)

    assert await worker.wait_together([a, a], "signal") == ["waiting", "stale"]

    assert execution.state().waits == {"a": "1 signal"}


async def test_what_waits_for_its_child_keeps_the_failures_that_say_which(engine, redis):
    worker = engine.worker()
    execution, (a, b) = await engine.start_and_take({"a": [], "b": []}, worker)
    for one in "ab":
        redis.hset(execution.key(":run"), f"failures:{one}", 1)

    await worker.wait(a, "child", number=2)
    await worker.wait(b, "signal")

    assert redis.hget(execution.key(":run"), "failures:a") == "1"
    assert redis.hget(execution.key(":run"), "failures:b") is None
