"""The doctor on schedules: silent about what is sound, loud about each that nobody looks at."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from flowd.diagnosis.doctor import check, look
from flowd.store.redis import keys
from tests.store.schedules import HOUR_MS, NAME, Scheduled, schedule


async def found(store) -> list[str]:
    return [one for each in check(await look(store)) for one in each.violations]


async def test_whatever_a_schedule_does_is_sound(store, redis, engine):
    nightly = await schedule(store, redis, overlap="queue")
    for hours in range(3):
        await nightly.attend(nightly.first_ms + hours * HOUR_MS)
    await schedule(store, redis, name="paused", paused=True)
    worker = engine.worker()
    await worker.take()

    assert [one for one in await found(store) if "schedule" in one] == []


def not_due(one: Scheduled) -> None:
    one.redis.zrem(keys.SCHEDULES_DUE, NAME)


def long_due(one: Scheduled) -> None:
    one.redis.zadd(keys.SCHEDULES_DUE, {NAME: one.first_ms - 2 * HOUR_MS})


def late(one: Scheduled) -> None:
    one.redis.zadd(keys.SCHEDULES_DUE, {NAME: one.first_ms + HOUR_MS})


def failing(one: Scheduled) -> None:
    one.redis.hset(keys.schedule(NAME), "error", "it is gone")


def with_ended(one: Scheduled) -> None:
    one.redis.set(keys.status(one.id_at(one.first_ms)), "COMPLETED")


def forgotten(one: Scheduled) -> None:
    one.redis.hset(keys.schedule(NAME), "callback", 1)
    one.redis.hset(keys.callback(f"schedule {NAME}"), mapping={"state": "PENDING", "missed": 1})


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (not_due, "is due and no scheduler looks at it"),
        (long_due, "no scheduler has looked at it for minutes"),
        (late, "is looked at long after its time"),
        (failing, "cannot start its execution: it is gone"),
        (with_ended, "which has ended"),
        (forgotten, "has times to tell its callback of, and nobody tells it"),
    ],
)
async def test_each_damage_is_found(store, redis, damage: Callable[[Scheduled], None], said: str):
    nightly = await schedule(store, redis)
    await nightly.attend(nightly.first_ms)
    # From here on it is due as a real clock has it.
    redis.hset(keys.schedule(NAME), "next_ms", nightly.first_ms)
    redis.zadd(keys.SCHEDULES_DUE, {NAME: nightly.first_ms})

    damage(nightly)

    assert [one for one in await found(store) if said in one and NAME in one]
