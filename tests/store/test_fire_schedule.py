"""A time of a schedule: its execution is made and started once, or it is counted."""

from __future__ import annotations

import asyncio

import pytest

from flowd.errors import ScheduleBusy, UnknownDefinition
from flowd.orchestrator.executor import cancel_execution, trigger_workflow
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.schedules import Firings, hold_schedule, put_schedule, read_schedule
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.executions import NODES_PER_CALL_MAX
from flowd.store.redis import keys
from flowd.workflow.concurrency import LimitReached
from flowd.workflow.schedule import ScheduleDefinition
from tests.store.engine import everything, fan, finish_continuations
from tests.store.schedules import HOUR_MS, MINUTE_MS, NAME, save, schedule


def events(redis) -> list[tuple[str, str]]:
    found = [pair for _, fields in redis.xrange(keys.EVENTS) for pair in fields.items()]
    return [(type_, text) for type_, text in found if type_.startswith("schedule.")]


async def test_what_is_due_runs_as_an_execution_of_that_time(store, redis, outcomes):
    nightly = await schedule(store, redis, input={"x": 1}, timezone="Europe/Berlin")
    at = nightly.first_ms

    await nightly.attend(at)

    assert outcomes["fire_schedule"] == [["triggered"]]
    assert nightly.status_at(at) == "RUNNING"
    run = redis.hgetall(keys.run(nightly.id_at(at)))
    timetable = read_schedule(NAME, (await nightly.row()).said).timetable
    assert run["schedule"] == NAME and run["definition"] == "report@1"
    assert run["scheduled_at"] == timetable.iso(at)
    assert run["scheduled_at"].endswith(("+01:00", "+02:00"))
    assert redis.get(keys.given_input(nightly.id_at(at))) == '{"x":1}'
    assert nightly.holders() == {nightly.id_at(at)}
    assert (nightly.field("next_ms"), nightly.look_ms()) == (str(at + HOUR_MS), at + HOUR_MS)
    assert nightly.counts() == {"fired": 1}
    assert redis.hget(keys.METRICS, "schedules fired") == "1"
    assert nightly.id_at(at)[:12] == f"{at:012x}"


async def test_before_its_time_nothing_is_done(store, redis, outcomes):
    nightly = await schedule(store, redis)

    await nightly.attend(nightly.first_ms - 1)

    assert outcomes["fire_schedule"] == [["passed"]]
    assert nightly.look_ms() == nightly.first_ms
    assert nightly.counts() == {}


async def test_two_schedulers_of_which_one_was_frozen_run_it_once(store, redis, outcomes):
    nightly = await schedule(store, redis)
    frozen = await nightly.seen()
    await nightly.attend(nightly.first_ms)
    await nightly.end(nightly.first_ms)
    before = everything(redis)

    # It goes on with what it has seen a minute ago.
    await Firings(store, Plans(store)).attend(frozen, nightly.first_ms)

    assert outcomes["fire_schedule"] == [["triggered"], ["changed"]]
    assert everything(redis) == before


async def test_any_number_of_schedulers_run_each_time_once(store, redis):
    nightly = await schedule(store, redis, overlap="allow")
    for number in range(10):
        now_ms = nightly.first_ms + number * HOUR_MS
        # Each of them has begun anew.
        seen = [await nightly.seen() for _ in range(4)]
        await asyncio.gather(*(Firings(store, Plans(store)).attend(one, now_ms) for one in seen))
    assert nightly.counts() == {"fired": 10}
    assert nightly.holders() == {
        nightly.id_at(nightly.first_ms + number * HOUR_MS) for number in range(10)
    }


async def test_what_was_changed_during_a_tick_does_not_run_by_the_old_rule(store, redis, outcomes):
    nightly = await schedule(store, redis)
    seen = await nightly.seen()
    changed = ScheduleDefinition(workflow="report", every_s=7200, input={"new": True})
    await put_schedule(store, NAME, changed)

    await nightly.attend(nightly.first_ms, seen)

    assert outcomes["fire_schedule"] == [["changed"]]
    assert nightly.status_at(nightly.first_ms) is None


async def test_one_deleted_and_made_again_is_another(store, redis, outcomes):
    nightly = await schedule(store, redis)
    seen = await nightly.seen()
    await store.schedules.delete(NAME)
    await schedule(store, redis)

    await nightly.attend(nightly.first_ms, seen)

    assert outcomes["fire_schedule"] == [["changed"]]


async def test_a_time_that_has_run_does_not_run_again_when_its_schedule_is_made_anew(
    store, redis, outcomes
):
    nightly = await schedule(store, redis)
    await nightly.attend(nightly.first_ms)
    await store.schedules.delete(NAME)
    again = await schedule(store, redis)

    await again.attend(again.first_ms)

    assert outcomes["fire_schedule"] == [["triggered"], ["exists"]]
    assert again.counts() == {}


async def test_after_three_days_without_a_scheduler_the_last_time_runs(store, redis):
    nightly = await schedule(store, redis)
    now_ms = nightly.first_ms + 72 * HOUR_MS + 5 * MINUTE_MS

    await nightly.attend(now_ms)

    assert nightly.counts() == {"fired": 1, "missed": 72}
    assert nightly.status_at(nightly.first_ms + 72 * HOUR_MS) == "RUNNING"
    assert nightly.field("next_ms") == str(nightly.first_ms + 73 * HOUR_MS)
    last_ms = nightly.first_ms + 71 * HOUR_MS
    said = f'-\n{{"schedule":"nightly","times":72,"scheduled_ms":{last_ms}}}'
    assert events(redis) == [("schedule.missed", said)]
    assert redis.hget(keys.METRICS, "schedules missed") == "72"
    assert (nightly.field("unmet"), nightly.field("unmet_ms")) == ("72", str(nightly.first_ms))


async def test_outside_of_the_window_nothing_runs(store, redis, outcomes):
    nightly = await schedule(store, redis, catch_up_window_s=60)

    await nightly.attend(nightly.first_ms + 5 * MINUTE_MS)

    assert outcomes["fire_schedule"] == [["passed"]]
    assert nightly.counts() == {"missed": 1}


async def test_all_missed_times_run_one_after_the_other_the_oldest_first(store, redis, outcomes):
    day_s = 24 * 3600
    nightly = await schedule(store, redis, catch_up="all", catch_up_window_s=day_s, overlap="allow")
    now_ms = nightly.first_ms + 30 * HOUR_MS + 5 * MINUTE_MS
    first_kept = nightly.first_ms + 7 * HOUR_MS

    for number in range(24):
        await nightly.attend(now_ms)
        await nightly.attend(now_ms)
        assert outcomes["fire_schedule"][-1][0] == ("waiting" if number < 23 else "passed")
        assert nightly.holders() == {nightly.id_at(first_kept + number * HOUR_MS)}
        assert nightly.field("waits") == ("1" if number < 23 else "0")
        await nightly.end(first_kept + number * HOUR_MS)
        # Whoever waits is looked at as soon as the one before has ended.
        if number < 23:
            assert nightly.look_ms() < nightly.first_ms + HOUR_MS
    assert nightly.counts() == {"fired": 24, "missed": 7}


async def test_ten_thousand_missed_times_are_counted_in_slices(store, redis):
    nightly = await schedule(store, redis, cron="* * * * *", catch_up="none")
    now_ms = nightly.first_ms + 10_000 * MINUTE_MS + 2 * MINUTE_MS - 1

    for _ in range(11):
        await nightly.attend(now_ms)

    counts = nightly.counts()
    assert counts == {"missed": 10_001, "fired": 1}


async def test_a_time_is_skipped_while_the_one_before_runs(store, redis, outcomes):
    nightly = await schedule(store, redis)
    at = nightly.first_ms
    await nightly.attend(at)

    await nightly.attend(at + HOUR_MS)

    assert outcomes["fire_schedule"][1] == ["skipped", nightly.id_at(at)]
    assert nightly.counts() == {"fired": 1, "skipped": 1}
    said = f'-\n{{"schedule":"nightly","times":1,"scheduled_ms":{at + HOUR_MS}}}'
    assert events(redis) == [("schedule.skipped", said)]
    await nightly.end(at)
    assert nightly.holders() == set()
    await nightly.attend(at + 2 * HOUR_MS)
    assert nightly.counts() == {"fired": 2, "skipped": 1}


@pytest.mark.parametrize("status", ["PENDING", "RUNNING", "PAUSED", "CANCELLING"])
async def test_what_has_not_ended_holds_its_place(store, redis, outcomes, status):
    nightly = await schedule(store, redis)
    await nightly.attend(nightly.first_ms)
    redis.set(keys.status(nightly.id_at(nightly.first_ms)), status)

    await nightly.attend(nightly.first_ms + HOUR_MS)

    assert outcomes["fire_schedule"][1][0] == "skipped"


@pytest.mark.parametrize("way", ["failed", "cancelled", "deleted", "gone"])
async def test_a_place_comes_back_on_every_way_out(store, redis, outcomes, way):
    nightly = await schedule(store, redis)
    execution_id = nightly.id_at(nightly.first_ms)
    await nightly.attend(nightly.first_ms)
    if way == "failed":
        await nightly.end(nightly.first_ms)
    elif way == "gone":
        # By no script of flowd: a backup, or a hand.
        redis.delete(keys.status(execution_id))
    else:
        await store.lifecycle.cancel_execution(execution_id)
        if way == "deleted":
            await store.finished.delete_execution(execution_id)

    await nightly.attend(nightly.first_ms + HOUR_MS)

    assert outcomes["fire_schedule"][1] == ["triggered"]
    assert nightly.holders() == {nightly.id_at(nightly.first_ms + HOUR_MS)}


async def test_one_time_is_kept_until_the_one_before_has_ended(store, redis, outcomes):
    nightly = await schedule(store, redis, overlap="queue")
    at = nightly.first_ms
    for hours in range(3):
        await nightly.attend(at + hours * HOUR_MS)
    assert [one[0] for one in outcomes["fire_schedule"]] == [
        *("triggered", "queued"),
        *("waiting", "skipped"),
    ]
    assert nightly.field("queued_ms") == str(at + HOUR_MS)
    # Looked at soon, whoever forgets to say that it has ended; the first time may be as near.
    assert nightly.look_ms() < at + HOUR_MS

    await nightly.end(at)
    assert redis.lrange(keys.RETRIES_WAKEUP, 0, -1) == [NAME]
    assert NAME in [one.name for one in (await store.schedules.due()).schedules]
    await nightly.attend(at + 2 * HOUR_MS + MINUTE_MS)

    assert nightly.holders() == {nightly.id_at(at + HOUR_MS)}
    assert (nightly.field("queued_ms"), nightly.field("waits")) == (None, "0")
    assert nightly.look_ms() == at + 3 * HOUR_MS
    assert nightly.counts() == {"fired": 2, "skipped": 1}


async def test_a_newer_time_replaces_what_runs(store, redis):
    nightly = await schedule(store, redis, overlap="replace")
    at = nightly.first_ms
    await nightly.attend(at)

    await nightly.attend(at + HOUR_MS)
    assert nightly.status_at(at) == "CANCELLED"
    await nightly.attend(at + HOUR_MS + 1)

    assert nightly.status_at(at + HOUR_MS) == "RUNNING"
    assert nightly.holders() == {nightly.id_at(at + HOUR_MS)}


async def test_what_is_replaced_ends_its_finally_first(store, redis):
    graph = {"a": [], "z": {"finally": True}}
    nightly = await schedule(store, redis, graph, overlap="replace")
    at = nightly.first_ms
    await nightly.attend(at)
    for hours in (1, 2):
        await nightly.attend(at + hours * HOUR_MS)
    assert nightly.field("queued_ms") == str(at + 2 * HOUR_MS)
    assert nightly.counts() == {"fired": 1, "skipped": 1}
    assert nightly.holders() == {nightly.id_at(at)}

    await nightly.end(at)
    await nightly.attend(at + 2 * HOUR_MS + 1)

    assert nightly.status_at(at + 2 * HOUR_MS) == "RUNNING"


async def test_they_may_run_side_by_side(store, redis):
    nightly = await schedule(store, redis, overlap="allow")
    for hours in range(3):
        await nightly.attend(nightly.first_ms + hours * HOUR_MS)
    assert nightly.counts() == {"fired": 3}
    assert len(nightly.holders()) == 3


async def test_paused_time_is_never_missed(store, redis):
    nightly = await schedule(store, redis)
    await hold_schedule(store, NAME, is_paused=True)
    assert (nightly.field("next_ms"), nightly.look_ms()) == ("", None)

    await hold_schedule(store, NAME, is_paused=False)

    assert (nightly.counts(), nightly.field("next_ms")) == ({}, str(nightly.first_ms))


async def test_ten_starts_and_stops_lose_no_time_and_make_none_up(store, redis):
    nightly = await schedule(store, redis)
    for _ in range(10):
        await hold_schedule(store, NAME, is_paused=True)
        await hold_schedule(store, NAME, is_paused=False)
    await nightly.attend(nightly.first_ms)
    assert nightly.counts() == {"fired": 1}


async def test_by_hand_it_obeys_unless_it_is_forced(store, redis):
    nightly = await schedule(store, redis)
    first = await nightly.firings.run_by_hand(NAME, None, is_forced=False)
    with pytest.raises(ScheduleBusy, match=first.execution_id):
        await nightly.firings.run_by_hand(NAME, None, is_forced=False)

    second = await nightly.firings.run_by_hand(NAME, None, is_forced=True)

    assert nightly.holders() == {first.execution_id, second.execution_id}
    assert nightly.counts() == {"fired": 2}
    assert (nightly.field("next_ms"), nightly.look_ms()) == (
        str(nightly.first_ms),
        nightly.first_ms,
    )


async def test_by_hand_it_queues_where_the_schedule_does(store, redis):
    nightly = await schedule(store, redis, overlap="queue", paused=True)
    first = await nightly.firings.run_by_hand(NAME, None, is_forced=False)
    queued = await nightly.firings.run_by_hand(NAME, None, is_forced=False)
    assert (first.is_queued, queued.is_queued) == (False, True)
    with pytest.raises(ScheduleBusy, match="waits for its end"):
        await nightly.firings.run_by_hand(NAME, None, is_forced=False)

    await store.executions.fail_execution(first.execution_id, "it is over")
    await nightly.attend((await nightly.row()).now_ms)

    assert nightly.holders() == {queued.execution_id}
    # Paused, it waits for nothing more.
    assert nightly.look_ms() is None


async def test_more_nodes_than_a_call_stores_are_staged_and_cleared_away_if_none_is_made(
    store, redis, outcomes
):
    wide = fan(NODES_PER_CALL_MAX + 1)
    nightly = await schedule(store, redis, wide)
    at = nightly.first_ms
    await nightly.attend(at)
    assert nightly.execution_at(at, wide).states() == {"QUEUED": 1, "PENDING": 1002}
    assert redis.zcard(keys.CONTINUATIONS) == 0
    before = {one for one in redis.keys("workflow:*") if nightly.id_at(at) not in one}

    await nightly.attend(at + HOUR_MS)

    assert outcomes["fire_schedule"][1][0] == "skipped"
    after = {one for one in redis.keys("workflow:*") if nightly.id_at(at) not in one}
    assert after == before


async def test_too_many_roots_are_opened_slice_by_slice(store, redis, outcomes):
    graph = {f"n{number}": [] for number in range(DEPENDENTS_PER_CALL_MAX + 1)}
    nightly = await schedule(store, redis, graph)

    await nightly.attend(nightly.first_ms)

    assert outcomes["fire_schedule"] == [["continue"]]
    assert nightly.execution_at(nightly.first_ms, graph).states() == {"QUEUED": len(graph)}


async def test_what_was_staged_and_cleared_away_meanwhile_is_tried_again(
    store, redis, outcomes, monkeypatch
):
    wide = fan(NODES_PER_CALL_MAX + 1)
    nightly = await schedule(store, redis, wide)
    fire = store.schedules.fire

    async def late(firing):
        await store.submissions.discard_staged(firing.making.execution_id)
        return await fire(firing)

    monkeypatch.setattr(store.schedules, "fire", late)
    with pytest.raises(Exception, match="too long"):
        await nightly.attend(nightly.first_ms)
    assert outcomes["fire_schedule"] == [["closed"]]
    monkeypatch.undo()

    await nightly.attend(nightly.first_ms)
    assert nightly.status_at(nightly.first_ms) == "RUNNING"


async def test_what_was_run_under_a_key_and_deleted_is_not_run_again(store, redis, outcomes, plans):
    nightly = await schedule(store, redis)
    claimed = await store.submissions.idempotency.claim("k", b"x", nightly.id_at(12_001))
    again = {"is_forced": True, "key_digest": claimed.key_digest}
    await nightly.firings.run_by_hand(NAME, 12_001, **again)
    await store.lifecycle.cancel_execution(nightly.id_at(12_001))
    await store.finished.delete_execution(nightly.id_at(12_001))
    await finish_continuations(store, plans)
    await nightly.firings.run_by_hand(NAME, 12_002, is_forced=True)
    before = redis.hgetall(keys.schedule(NAME))

    await nightly.firings.run_by_hand(NAME, 12_001, **again)

    assert redis.hgetall(keys.schedule(NAME)) == before
    outcome = [one[0] for one in outcomes["fire_schedule"]]
    assert outcome == ["triggered", "triggered", "deleted"]
    assert nightly.status_at(12_001) is None


async def test_without_its_definition_it_says_so_and_stays_due(store, redis):
    nightly = await schedule(store, redis)
    redis.delete(keys.saved_definition("report"))

    with pytest.raises(UnknownDefinition):
        await nightly.attend(nightly.first_ms)

    assert nightly.field("next_ms") == str(nightly.first_ms)
    await save(store)
    await nightly.attend(nightly.first_ms)
    assert nightly.status_at(nightly.first_ms) == "RUNNING"


async def test_without_a_free_place_of_its_workflow_it_is_made_and_waits(
    engine, store, redis, outcomes
):
    nightly = await schedule(store, redis, overlap="skip")
    await save(store, {"a": []}, concurrency={})
    other = await engine.submit({"a": []}, concurrency={})
    await trigger_workflow(store, other.id)
    first = nightly.first_ms
    await nightly.attend(first)
    assert outcomes["fire_schedule"] == [["held"]]
    assert nightly.status_at(first) == "PENDING"

    await nightly.attend(first + HOUR_MS)
    assert outcomes["fire_schedule"][-1] == ["skipped", nightly.id_at(first)]
    await cancel_execution(store, other.id)

    assert nightly.status_at(first) == "RUNNING"
    assert nightly.counts() == {"fired": 1, "skipped": 1}


async def test_a_time_that_is_refused_a_place_counts_as_skipped_and_by_hand_is_refused(
    engine, store, redis, outcomes
):
    refuse = {"concurrency": {"when_full": "refuse"}}
    nightly = await schedule(store, redis)
    await save(store, {"a": []}, **refuse)
    other = await engine.submit({"a": []}, **refuse)
    await trigger_workflow(store, other.id)
    await nightly.attend(nightly.first_ms)

    assert outcomes["fire_schedule"] == [["refused"]]
    assert nightly.counts() == {"skipped": 1}
    assert redis.hmget(keys.schedule(NAME), "last_ms", "last_id") == [None, None]
    for is_forced in (False, True):
        with pytest.raises(LimitReached, match=other.id):
            await nightly.firings.run_by_hand(NAME, None, is_forced=is_forced)
    assert nightly.counts() == {"skipped": 1}
