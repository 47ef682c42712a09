"""What waits does not wait for a clock that was put back to catch up."""

from __future__ import annotations

from flowd.store.redis import keys


async def test_everything_that_waits_comes_so_much_sooner(store, redis):
    redis.zadd(keys.RETRIES, {f"{number:024x} a": 10_000 + number for number in range(1_200)})

    await store.retries.hasten(4_000)

    found = redis.zrange(keys.RETRIES, 0, -1, withscores=True)
    assert found == [(f"{number:024x} a", 6_000.0 + number) for number in range(1_200)]


async def test_where_nothing_waits_nothing_is_written(store, redis):
    await store.retries.hasten(4_000)
    assert redis.dbsize() == 0
