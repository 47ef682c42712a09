"""keep_outputs.lua: outputs for equal calls, each for its time, and all within their room."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowd.config import RetentionSettings
from flowd.diagnosis.cache_check import look_at_cache
from flowd.errors import StoreFull
from flowd.store import open_store
from flowd.store.cache import OUTPUT_KEPT_BYTES_MAX
from flowd.store.redis import keys
from flowd.workflow.caching import Keep
from tests.store.cache import OUTPUT, A, B, is_sound


async def test_a_newer_output_takes_the_place_of_the_older_and_is_counted_once(store):
    await store.tasks.cache.keep([(A, b'{"x":"' + b"x" * 1000 + b'"}')])
    await store.tasks.cache.keep([(A, OUTPUT)])

    assert await store.tasks.cache.find([A]) == [OUTPUT]
    assert (await store.tasks.cache.size()).entries == 1
    assert (await store.tasks.cache.size()).size < 1000
    assert await is_sound(store)


async def test_an_output_is_gone_at_its_end_and_its_name_with_the_next_that_is_kept(store, redis):
    await store.tasks.cache.keep([(A._replace(ttl_ms=1000), OUTPUT)])
    assert 0 < redis.pttl(keys.kept_output(A.name)) <= 1000
    # As if its time had passed.
    redis.zadd(keys.CACHE, {A.name: 1})
    redis.delete(keys.kept_output(A.name))

    assert await store.tasks.cache.find([A]) == [None]
    await store.tasks.cache.keep([(B, OUTPUT)])
    assert redis.zrange(keys.CACHE, 0, -1) == [B.name]
    assert await is_sound(store)


async def test_an_output_that_is_too_large_is_not_kept(store):
    fits = b'{"x":"' + b"x" * (OUTPUT_KEPT_BYTES_MAX - 8) + b'"}'
    await store.tasks.cache.keep([(A, fits), (B, fits + b" ")])
    assert await store.tasks.cache.find([A, B]) == [fits, None]


async def test_what_would_be_over_first_makes_room(settings):
    small = open_store(replace(settings, retention=RetentionSettings(cache_max_mb=1)))
    half = b'{"x":"' + b"x" * 400_000 + b'"}'
    names = [Keep(f"llm/={at}", 60_000 - at) for at in range(4)]
    await small.tasks.cache.keep([(one, half) for one in names])

    assert await small.tasks.cache.find(names) == [half, half, None, None]
    assert (await small.tasks.cache.size()).size <= 2**20
    assert await is_sound(small)
    await small.close()


async def test_a_smaller_bound_holds_at_the_next_look_of_a_scheduler(settings, store):
    half = b'{"x":"' + b"x" * 400_000 + b'"}'
    await store.tasks.cache.keep([(Keep(f"llm/={at}", 60_000), half) for at in range(4)])
    small = open_store(replace(settings, retention=RetentionSettings(cache_max_mb=1)))

    assert not await small.tasks.cache.trim()
    assert (await small.tasks.cache.size()).entries == 2
    assert await is_sound(small)
    await small.close()


async def test_thousands_that_are_over_go_some_at_a_time(store, redis, outcomes):
    await store.tasks.cache.keep([(Keep(f"llm/={at}", 60_000), OUTPUT) for at in range(700)])
    redis.zadd(keys.CACHE, {f"llm/={at}": 1 for at in range(700)})

    assert await store.tasks.cache.trim()
    assert not await store.tasks.cache.trim()
    assert outcomes["keep_outputs"][-2:] == ["more", "kept"]
    assert (await store.tasks.cache.size())[:2] == (0, 0)
    assert await is_sound(store)


async def test_nothing_is_kept_while_redis_is_full(store, redis):
    await store.tasks.cache.keep([(A, OUTPUT)])
    redis.config_set("maxmemory", "1mb")
    try:
        with pytest.raises(StoreFull):
            await store.tasks.cache.keep([(B, OUTPUT)])
        assert await store.tasks.cache.find([A]) == [OUTPUT]
        assert await store.tasks.cache.clear() == 1
    finally:
        redis.config_set("maxmemory", "0")


async def test_doctor_sees_what_is_not_counted(store, redis):
    await store.tasks.cache.keep([(A, OUTPUT), (B, OUTPUT)])
    redis.hdel(keys.CACHE_SIZES, A.name)
    redis.zrem(keys.CACHE, B.name)

    said = " ".join((await look_at_cache(store)).mismatches)
    assert "'llm/=a' is listed, not counted" in said
    assert "'llm/=b' is counted, not listed" in said
    assert "are counted as" in said


async def test_what_is_counted_of_nothing_that_is_kept_is_forgotten(store, redis):
    """As after somebody has deleted the names: else all that is new would go at once, for ever."""
    redis.hset(keys.CACHE_SIZES, "total", 10**12)
    await store.tasks.cache.keep([(A, OUTPUT)])
    assert redis.exists(keys.CACHE_SIZES) == 0

    await store.tasks.cache.keep([(A, OUTPUT)])

    assert await store.tasks.cache.find([A]) == [OUTPUT]
    assert await is_sound(store)
