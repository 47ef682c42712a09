"""A schedule is made or changed: from then on nothing runs by the old rule."""

from __future__ import annotations

import asyncio

import pytest

from flowd.errors import DefinitionInUse, UnknownDefinition, UnknownSchedule
from flowd.orchestrator.schedules import hold_schedule, put_schedule
from flowd.store.redis import keys
from flowd.workflow.schedule import ScheduleDefinition
from tests.store.engine import CHAIN, everything
from tests.store.schedules import HOUR_MS, NAME, save, schedule

HOURLY = ScheduleDefinition(workflow="report", every_s=3600)


async def test_one_that_is_made_is_due_at_its_next_time(store, redis, outcomes):
    nightly = await schedule(store, redis)

    assert outcomes["put_schedule"] == ["put"]
    row = await nightly.row()
    assert row.now_ms < row.next_ms <= row.now_ms + HOUR_MS and row.next_ms % HOUR_MS == 0
    assert nightly.look_ms() == row.next_ms
    assert await store.schedules.names(10) == [NAME]
    assert redis.lrange(keys.RETRIES_WAKEUP, 0, -1) == [NAME]
    assert redis.smembers(keys.schedules_of("report")) == {NAME}


async def test_what_says_the_same_is_not_changed(store, redis):
    await schedule(store, redis)
    before = everything(redis)

    same = {"workflow": "report", "every_s": 3600, "overlap": "skip", "input": {}}
    assert await put_schedule(store, NAME, ScheduleDefinition(**same)) == "unchanged"

    assert everything(redis) == before


async def test_of_a_definition_that_is_not_saved_there_is_none(store, redis, outcomes):
    with pytest.raises(UnknownDefinition):
        await put_schedule(store, NAME, HOURLY)

    assert outcomes["put_schedule"] == ["unknown"]
    assert redis.keys("flowd:schedule*") == []


async def test_a_definition_that_a_schedule_runs_is_not_deleted(store, redis):
    await schedule(store, redis)
    await save(store, CHAIN, "other")
    with pytest.raises(DefinitionInUse, match=NAME):
        await store.saved.delete("report")

    await put_schedule(store, NAME, ScheduleDefinition(workflow="other", every_s=3600))

    await store.saved.delete("report")
    with pytest.raises(DefinitionInUse):
        await store.saved.delete("other")


async def test_of_two_that_change_it_at_once_each_has_done_so(store, redis, outcomes):
    nightly = await schedule(store, redis)

    await asyncio.gather(
        *(
            put_schedule(store, NAME, ScheduleDefinition(workflow="report", every_s=60 * (one + 1)))
            for one in range(5)
        )
    )

    assert outcomes["put_schedule"].count("put") == 6
    assert "stale" in outcomes["put_schedule"]
    assert nightly.look_ms() == int(nightly.field("next_ms"))


async def test_a_time_that_is_due_is_kept_if_the_new_rule_has_it_too(store, redis):
    nightly = await schedule(store, redis)
    due_ms = nightly.first_ms - 24 * HOUR_MS
    redis.hset(keys.schedule(NAME), "next_ms", due_ms)

    await put_schedule(store, NAME, HOURLY.model_copy(update={"input": {"x": 1}}))

    assert (nightly.field("next_ms"), nightly.counts()) == (str(due_ms), {})
    assert nightly.look_ms() == due_ms


async def test_changed_after_the_clock_was_put_back_it_runs_no_time_again(store, redis):
    nightly = await schedule(store, redis)
    last_ms = nightly.first_ms + 3 * HOUR_MS
    redis.hset(keys.schedule(NAME), mapping={"last_ms": last_ms, "next_ms": last_ms + HOUR_MS})

    await put_schedule(store, NAME, HOURLY.model_copy(update={"input": {"x": 1}}))

    assert (nightly.field("next_ms"), nightly.counts()) == (str(last_ms + HOUR_MS), {})


async def test_a_time_that_is_due_is_missed_if_the_new_rule_does_not_have_it(store, redis):
    nightly = await schedule(store, redis)
    redis.hset(keys.schedule(NAME), "next_ms", nightly.first_ms - 24 * HOUR_MS)

    await put_schedule(store, NAME, ScheduleDefinition(workflow="report", cron="7 3 * * *"))

    assert nightly.counts() == {"missed": 24}


async def test_who_waits_by_the_old_rule_is_dropped_and_counted(store, redis):
    nightly = await schedule(store, redis, overlap="queue")
    for hours in range(2):
        await nightly.attend(nightly.first_ms + hours * HOUR_MS)

    await put_schedule(store, NAME, HOURLY)

    assert (nightly.field("queued_ms"), nightly.field("waits")) == (None, None)
    assert nightly.counts() == {"fired": 1, "skipped": 1}


async def test_what_is_paused_is_not_due(store, redis):
    nightly = await schedule(store, redis)

    await hold_schedule(store, NAME, is_paused=True)
    assert (nightly.look_ms(), (await nightly.row()).next_ms) == (None, None)
    await hold_schedule(store, NAME, is_paused=True)
    await hold_schedule(store, NAME, is_paused=False)

    assert nightly.look_ms() == nightly.first_ms
    with pytest.raises(UnknownSchedule):
        await hold_schedule(store, "other", is_paused=True)
