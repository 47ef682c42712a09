"""find_outputs.lua: nobody is given what is too old for him, or no output."""

from __future__ import annotations

import pytest

from flowd.store.redis import keys
from tests.store.cache import OUTPUT, A, B, is_sound


async def test_what_is_kept_is_found_under_its_name_alone(store):
    await store.tasks.cache.keep([(A, OUTPUT)])

    assert await store.tasks.cache.find([B, A]) == [None, OUTPUT]
    assert await store.tasks.cache.find([]) == []
    assert await is_sound(store)


async def test_nobody_is_given_what_is_older_than_he_bears_whoever_kept_it(store, redis):
    """One workflow keeps an answer for a day, another asks for one of this minute."""
    await store.tasks.cache.keep([(A, OUTPUT)])
    written_ms, rest = redis.get(keys.kept_output(A.name)).split(" ", 1)
    redis.set(keys.kept_output(A.name), f"{int(written_ms) - 30_000} {rest}")

    assert await store.tasks.cache.find([A, A._replace(ttl_ms=20_000)]) == [OUTPUT, None]


async def test_a_clock_that_was_put_back_makes_nothing_younger(store, redis):
    await store.tasks.cache.keep([(A, OUTPUT)])
    # An hour has passed since, which the server's clock does not show.
    redis.hset(keys.CLOCK, "ahead_ms", 3_600_000)
    assert await store.tasks.cache.find([A]) == [None]


@pytest.mark.parametrize("text", ["", "x", "null", "1 60000 ", "1 60000 {}", "9 x {}"])
async def test_what_a_hand_has_written_there_is_no_output(store, redis, text):
    await store.tasks.cache.keep([(A, OUTPUT)])
    redis.set(keys.kept_output(A.name), text)
    assert await store.tasks.cache.find([A]) == [None]


@pytest.mark.parametrize("output", [b"null", b"5", b'"x"', b"[]", b"{"])
async def test_only_an_object_is_an_output(store, output):
    await store.tasks.cache.keep([(A, output)])
    assert await store.tasks.cache.find([A]) == [None]


async def test_a_key_of_another_type_is_no_output(store, redis):
    redis.lpush(keys.kept_output(A.name), "x")
    assert await store.tasks.cache.find([A]) == [None]
