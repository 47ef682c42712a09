"""Which schedules are to be looked at now, and how long until the next."""

from __future__ import annotations

import pytest

from flowd.orchestrator import input_fit as input_fits
from flowd.orchestrator.input_fit import InputFit
from flowd.orchestrator.plans import Plans
from flowd.scheduler import schedules as duty
from flowd.scheduler.schedules import FireSchedules, ReadmitSchedules
from flowd.store.redis import keys
from tests.store.engine import everything
from tests.store.schedules import HOUR_MS, MINUTE_MS, NAME, save, schedule


def make_due(redis, name: str, time_ms: int) -> None:
    redis.hset(keys.schedule(name), "next_ms", time_ms)
    redis.zadd(keys.SCHEDULES_DUE, {name: time_ms})


async def test_what_is_not_due_says_when_it_is(store, redis):
    nightly = await schedule(store, redis)

    page = await store.schedules.due()

    assert page.schedules == []
    assert page.next_in_ms == nightly.first_ms - page.now_ms
    assert abs(page.now_ms - await store.schedules.now_ms()) < 600_000


async def test_who_has_waited_longest_comes_first(store, redis):
    first = await schedule(store, redis, name="a")
    await schedule(store, redis, name="b")
    make_due(redis, "a", first.first_ms - HOUR_MS)
    make_due(redis, "b", first.first_ms - 2 * HOUR_MS)

    page = await store.schedules.due()
    assert [one.name for one in page.schedules] == ["b", "a"]
    assert page.next_in_ms is None
    (row,) = (await store.schedules.due(1)).schedules
    assert (row.name, row.next_ms) == ("b", first.first_ms - 2 * HOUR_MS)


async def test_a_scheduler_fires_all_that_are_due_and_sleeps_until_the_next(store, redis):
    names = [f"s{number}" for number in range(250)]
    for name in names:
        one = await schedule(store, redis, name=name, overlap="allow")
        make_due(redis, name, one.first_ms - HOUR_MS)
    fire = FireSchedules(store, Plans(store))

    while fire.next_in_s is None or fire.next_in_s == 0:
        await fire.run(0.0)

    assert len(redis.smembers(keys.ACTIVE)) == 250
    assert 0 < fire.next_in_s <= 3600


async def test_one_that_cannot_be_fired_holds_up_no_other_and_is_tried_again(store, redis, lines):
    for name in ("bad", "good", "odd"):
        one = await schedule(store, redis, name=name)
        make_due(redis, name, one.first_ms - HOUR_MS)
    redis.hset(keys.schedule("bad"), "said", "{}")
    redis.delete(keys.schedule("odd"))
    redis.set(keys.schedule("odd"), "of another type")
    fire = FireSchedules(store, Plans(store))

    await fire.run(0.0)

    row = await store.schedules.row("bad")
    assert "flowd:schedule:bad" in row.error and row.failures == 1
    assert len(redis.smembers(keys.ACTIVE)) == 1
    scores = {one: redis.zscore(keys.SCHEDULES_DUE, one) for one in ("bad", "odd")}
    assert all(row.now_ms - 1 < score <= row.now_ms + 61_000 for score in scores.values())
    failed = {facts["schedule"]: facts["failures"] for _, facts in lines.of("schedule.failed")}
    assert failed["bad"] == 1
    ((level, fired),) = lines.of("schedule.fired")
    assert (level, fired["schedule"]) == ("info", "good")
    assert {fired["execution_id"]} == redis.smembers(keys.ACTIVE)


@pytest.fixture
def input_fit(settings, runner):
    input_fit = InputFit(settings)
    yield input_fit
    runner.run(input_fit.close())


async def test_what_does_not_fit_the_latest_version_starts_nothing_and_says_so(
    store, redis, input_fit
):
    one = await schedule(store, redis, input={"day": 7})
    make_due(redis, NAME, one.first_ms - HOUR_MS)
    day = {"type": "object", "properties": {"day": {"type": "string"}}}
    await save(store, input_schema=day)
    fire = FireSchedules(store, Plans(store), input_fit)

    await fire.run(0.0)

    row = await one.row()
    assert "input.day: 7 is not of type 'string'" in row.error
    assert (row.failures, redis.scard(keys.ACTIVE)) == (1, 0)

    await save(store)
    redis.zadd(keys.SCHEDULES_DUE, {NAME: 1})
    await fire.run(0.0)

    assert redis.scard(keys.ACTIVE) == 1
    assert (await one.row()).error is None


async def test_a_schema_that_takes_for_ever_holds_up_no_other_schedule(
    store, redis, input_fit, monkeypatch
):
    monkeypatch.setattr(input_fits, "LOOK_S_MAX", 5.0)
    endless = {"type": "object", "properties": {"day": {"type": "string", "pattern": "^(a+)+$"}}}
    await save(store, name="slow", input_schema=endless)
    for name, more in (
        ("bad", {"workflow": "slow", "input": {"day": "a" * 40 + "b"}}),
        ("good", {}),
    ):
        one = await schedule(store, redis, name=name, **more)
        make_due(redis, name, one.first_ms - HOUR_MS)
    fire = FireSchedules(store, Plans(store), input_fit)

    await fire.run(0.0)
    assert "takes long" in (await store.schedules.row("bad")).error
    assert redis.scard(keys.ACTIVE) == 1

    while "given up" not in (await store.schedules.row("bad")).error:
        redis.zadd(keys.SCHEDULES_DUE, {"bad": 1})
        await fire.run(0.0)
    assert redis.scard(keys.ACTIVE) == 1


async def test_a_schedule_that_is_gone_is_looked_for_no_more(store, redis):
    redis.zadd(keys.SCHEDULES_DUE, {"ghost": 1})

    await FireSchedules(store, Plans(store)).run(0.0)

    assert redis.zcard(keys.SCHEDULES_DUE) == 0


async def test_a_clock_that_is_put_back_runs_no_time_twice(store, redis):
    nightly = await schedule(store, redis, overlap="allow")
    first = nightly.first_ms
    await nightly.attend(first)

    for now_ms in range(first - 3 * HOUR_MS, first + HOUR_MS, HOUR_MS // 2):
        await nightly.attend(now_ms)
    assert nightly.holders() == {nightly.id_at(first)}

    await nightly.attend(first + HOUR_MS)
    assert nightly.counts() == {"fired": 2}


async def test_what_a_clock_jumps_over_is_made_up_for(store, redis):
    nightly = await schedule(store, redis, cron="*/30 * * * *", catch_up="all")
    first = nightly.first_ms
    await nightly.attend(first)

    now_ms = first + HOUR_MS + 5 * MINUTE_MS
    for number in range(3):
        await nightly.attend(now_ms)
        assert nightly.holders() == {nightly.id_at(first + number * HOUR_MS // 2)}
        await nightly.end(first + number * HOUR_MS // 2)
        await nightly.attend(now_ms)

    assert nightly.counts() == {"fired": 3}


async def test_the_duty_ends_within_its_budget(store, redis, monkeypatch):
    monkeypatch.setattr(duty, "BUDGET_S", -1.0)
    one = await schedule(store, redis)
    make_due(redis, NAME, one.first_ms - HOUR_MS)
    fire = FireSchedules(store, Plans(store))

    await fire.run(0.0)

    # The rest at once, behind the other duties.
    assert fire.next_in_s == 0.0


async def test_schedules_are_looked_at_and_listed_again_after_damage(store, redis, lines):
    nightly = await schedule(store, redis)
    await schedule(store, redis, name="paused", paused=True)
    check = ReadmitSchedules(store)
    redis.delete(keys.SCHEDULES_DUE)

    await check.run(0.0)
    assert redis.zrange(keys.SCHEDULES_DUE, 0, -1, withscores=True) == [(NAME, nightly.first_ms)]
    assert lines.of("schedule.readmitted") == [("warning", {"schedule": NAME})]

    redis.delete(keys.SCHEDULES)
    await check.run(0.0)
    assert await store.schedules.names(10) == [NAME]
    before = everything(redis)
    await check.run(0.0)
    assert everything(redis) == before
