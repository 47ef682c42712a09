"""A schedule is deleted: nothing starts any more, and what it has started goes on."""

from __future__ import annotations

from flowd.store.redis import keys
from tests.store.engine import everything
from tests.store.schedules import HOUR_MS, NAME, save, schedule


async def test_nothing_of_it_is_left(store, redis, outcomes):
    await save(store)
    redis.delete(keys.RETRIES_WAKEUP)
    before = everything(redis)
    await schedule(store, redis)
    redis.delete(keys.RETRIES_WAKEUP)

    assert await store.schedules.delete(NAME)
    assert not await store.schedules.delete(NAME)

    assert outcomes["delete_schedule"] == ["deleted", "unknown"]
    assert everything(redis) == before


async def test_what_it_has_started_goes_on_and_ends_without_it(store, redis, outcomes):
    nightly = await schedule(store, redis, overlap="queue")
    seen = await nightly.seen()
    await nightly.attend(nightly.first_ms)
    await store.schedules.delete(NAME)
    assert nightly.status_at(nightly.first_ms) == "RUNNING"

    await nightly.end(nightly.first_ms)
    await nightly.attend(nightly.first_ms + HOUR_MS, seen)

    assert outcomes["fire_schedule"][-1] == ["changed"]
    assert redis.keys("flowd:schedule*") == []
