"""Times of a schedule that had no execution are told to its callback, once."""

from __future__ import annotations

import pytest

from flowd.errors import CorruptStore
from flowd.orchestrator.schedules import hold_schedule, put_schedule
from flowd.store.callbacks import CallbackState, Delivery, DueCallback, UntoldTimes
from flowd.store.redis import keys
from flowd.workflow.schedule import ScheduleDefinition
from tests.store.engine import everything
from tests.store.schedules import HOUR_MS, MINUTE_MS, NAME, save, schedule

SUBJECT = keys.about_schedule(NAME)
TELLING = {"callback": {"url": "https://example.com/flowd"}}


async def claim(store, repeat_after_ms: int = 30_000) -> list[DueCallback]:
    due, _ = await store.callbacks.claim(9, repeat_after_ms=repeat_after_ms)
    return due


async def test_what_was_missed_and_skipped_is_due_to_be_told_in_one_call(store, redis):
    nightly = await schedule(store, redis, **TELLING, every_s=3600)
    at = nightly.first_ms + 3 * HOUR_MS
    await nightly.attend(at)
    await nightly.attend(at + HOUR_MS)
    await nightly.attend(at + 2 * HOUR_MS)

    assert nightly.counts() == {"fired": 1, "missed": 3, "skipped": 2}
    assert await claim(store) == [DueCallback(SUBJECT, 1)]
    assert DueCallback(SUBJECT, 1).schedule == NAME
    assert await store.callbacks.untold(NAME) == UntoldTimes(3, 2, at + 2 * HOUR_MS, 0)
    due_ms = int(redis.zscore(keys.CALLBACKS, SUBJECT))
    assert await store.callbacks.schedule_delivery(NAME) == Delivery(attempts=1, next_ms=due_ms)


async def test_one_without_a_callback_tells_nobody(store, redis):
    nightly = await schedule(store, redis)

    await nightly.attend(nightly.first_ms + 3 * HOUR_MS)

    assert nightly.counts() == {"fired": 1, "missed": 3}
    assert redis.exists(keys.CALLBACKS, keys.callback(SUBJECT)) == 0


async def test_what_has_run_or_waits_is_not_told(store, redis):
    nightly = await schedule(store, redis, **TELLING, overlap="queue")

    await nightly.attend(nightly.first_ms)
    await nightly.attend(nightly.first_ms + HOUR_MS)

    assert nightly.field("queued_ms") == str(nightly.first_ms + HOUR_MS)
    assert redis.exists(keys.CALLBACKS, keys.callback(SUBJECT)) == 0


async def test_what_was_told_is_told_once_and_what_came_since_by_another_call(store, redis):
    nightly = await schedule(store, redis, **TELLING)
    await nightly.attend(nightly.first_ms + HOUR_MS)
    (due,) = await claim(store)
    told = await store.callbacks.untold(NAME)
    await nightly.attend(nightly.first_ms + 2 * HOUR_MS)

    settle = store.callbacks.settle
    assert await settle(due, CallbackState.DELIVERED, status_code=204, told=told) == "settled"
    assert await settle(due, CallbackState.DELIVERED, status_code=204, told=told) == "stale"

    assert await store.callbacks.untold(NAME) == UntoldTimes(
        0, 1, nightly.first_ms + 2 * HOUR_MS, 1
    )
    (second,) = await claim(store)
    assert second == DueCallback(SUBJECT, 2)
    # Late, and of what was told before: it takes nothing of the second call's.
    assert await settle(due, CallbackState.DELIVERED, told=told) == "stale"
    rest = await store.callbacks.untold(NAME)
    assert await settle(second, CallbackState.DELIVERED, status_code=200, told=rest) == "settled"
    delivery = await store.callbacks.schedule_delivery(NAME)
    assert (delivery.state, delivery.attempts) == (CallbackState.DELIVERED, 1)
    assert await claim(store) == []


async def test_what_could_not_be_told_is_given_up_and_the_next_begins_anew(store, redis):
    nightly = await schedule(store, redis, **TELLING)
    await nightly.attend(nightly.first_ms + HOUR_MS)
    for _ in range(3):
        (due,) = await claim(store, repeat_after_ms=0)
    told = await store.callbacks.untold(NAME)
    await store.callbacks.settle(due, CallbackState.FAILED, error="answered 500", told=told)
    failed = await store.callbacks.schedule_delivery(NAME)
    assert (failed.state, failed.attempts, failed.next_ms) == (CallbackState.FAILED, 3, None)

    await nightly.attend(nightly.first_ms + 2 * HOUR_MS)

    assert await store.callbacks.untold(NAME) == UntoldTimes(
        0, 1, nightly.first_ms + 2 * HOUR_MS, 3
    )
    assert (await store.callbacks.schedule_delivery(NAME)).attempts == 0
    assert await claim(store) == [DueCallback(SUBJECT, 4)]


async def test_one_that_waits_for_its_next_attempt_is_not_hurried_by_more_to_tell(store, redis):
    nightly = await schedule(store, redis, **TELLING)
    await nightly.attend(nightly.first_ms + HOUR_MS)
    (due,) = await claim(store)
    await store.callbacks.settle(due, CallbackState.PENDING, pause_ms=60_000, error="answered 500")
    due_ms = redis.zscore(keys.CALLBACKS, SUBJECT)

    await nightly.attend(nightly.first_ms + 2 * HOUR_MS)

    assert redis.zscore(keys.CALLBACKS, SUBJECT) == due_ms
    assert (await store.callbacks.untold(NAME))[:2] == (1, 1)


async def test_what_a_change_misses_is_told_by_the_new_rule(store, redis):
    nightly = await schedule(store, redis, overlap="queue")
    await nightly.attend(nightly.first_ms)
    await nightly.attend(nightly.first_ms + HOUR_MS)
    changed = {"workflow": "report", "every_s": 3600, **TELLING}

    await put_schedule(store, NAME, ScheduleDefinition.model_validate(changed))

    assert await store.callbacks.untold(NAME) == UntoldTimes(0, 1, nightly.first_ms + HOUR_MS, 0)


async def test_one_that_is_held_up_tells_what_it_has_to_tell(store, redis):
    nightly = await schedule(store, redis, **TELLING)
    await nightly.attend(nightly.first_ms + HOUR_MS)

    await hold_schedule(store, NAME, is_paused=True)

    assert (await store.callbacks.untold(NAME)).missed == 1
    assert await claim(store) == [DueCallback(SUBJECT, 1)]


async def test_who_is_not_to_be_told_any_more_is_not(store, redis):
    nightly = await schedule(store, redis, **TELLING)
    await nightly.attend(nightly.first_ms + HOUR_MS)
    (due,) = await claim(store)

    await put_schedule(store, NAME, ScheduleDefinition(workflow="report", every_s=3600))

    assert redis.exists(keys.CALLBACKS, keys.callback(SUBJECT)) == 0
    assert await store.callbacks.settle(due, CallbackState.FAILED, error="late") == "stale"
    assert redis.exists(keys.CALLBACKS, keys.callback(SUBJECT)) == 0


@pytest.mark.parametrize("is_claimed", [True, False])
async def test_with_the_schedule_goes_what_it_had_to_tell(store, redis, is_claimed):
    await save(store)
    before = everything(redis)
    await schedule(store, redis, **TELLING)
    redis.hset(keys.callback(SUBJECT), mapping={"state": "PENDING", "missed": 1, "attempts": 1})
    redis.zadd(keys.CALLBACKS, {SUBJECT: 1})
    await store.schedules.delete(NAME)
    redis.delete(keys.RETRIES_WAKEUP)
    assert everything(redis) == before

    redis.zadd(keys.CALLBACKS, {SUBJECT: 1})
    late = DueCallback(SUBJECT, 1)
    if is_claimed:
        assert await store.callbacks.settle(late, CallbackState.DELIVERED) == "unknown"
    assert await claim(store) == []
    assert everything(redis) == before


async def test_a_damaged_callback_keeps_no_time_from_its_fate(store, redis):
    nightly = await schedule(store, redis, **TELLING)
    redis.set(keys.callback(SUBJECT), "x")

    await nightly.attend(nightly.first_ms + HOUR_MS)

    assert nightly.counts() == {"fired": 1, "missed": 1}
    assert await claim(store) == []
    for look in (store.callbacks.untold, store.callbacks.schedule_delivery):
        with pytest.raises(CorruptStore):
            await look(NAME)


async def test_times_are_told_by_the_last_of_them_whatever_comes_first(store, redis):
    nightly = await schedule(store, redis, **TELLING, catch_up="all")
    await nightly.attend(nightly.first_ms)
    late = nightly.first_ms + 3 * HOUR_MS + 5 * MINUTE_MS
    await nightly.attend(late)

    last = await store.callbacks.untold(NAME)
    assert last.missed == 2 and last.last_ms == nightly.first_ms + 2 * HOUR_MS
