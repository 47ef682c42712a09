"""Deleting what is saved: all versions at once, and never while a schedule runs it."""

from __future__ import annotations

import pytest

from flowd.errors import CorruptStore, DefinitionInUse, UnknownDefinition
from flowd.store.redis import keys
from tests.store.engine import everything
from tests.store.test_put_definition import ABOUT, NAME, put


async def test_nothing_of_a_deleted_definition_is_left(store, redis, outcomes):
    for text in (b"a", b"b"):
        await put(store, text)

    await store.saved.delete(NAME)
    with pytest.raises(UnknownDefinition):
        await store.saved.delete(NAME)

    assert outcomes["delete_definition"] == [["deleted"], ["unknown"]]
    assert everything(redis) == {}


async def test_what_schedules_run_stays(store, redis, outcomes):
    await put(store, b"a")
    redis.sadd(keys.schedules_of(NAME), "nightly", "hourly")
    before = everything(redis)

    with pytest.raises(DefinitionInUse) as error:
        await store.saved.delete(NAME)

    assert error.value.schedules == ("hourly", "nightly")
    assert outcomes["delete_definition"][0][0] == "used"
    assert everything(redis) == before


async def test_what_the_latest_version_of_another_calls_stays(store, redis):
    await put(store, b"a")
    calling = ABOUT._replace(calls=(NAME,))
    for name in ("one", "two", NAME):
        await store.saved.put(name, b"calls", "digest", calling)
    before = everything(redis)

    with pytest.raises(DefinitionInUse, match="'one', 'two'; delete or change") as error:
        await store.saved.delete(NAME)
    assert error.value.callers == ("one", "two")
    assert everything(redis) == before

    await store.saved.put("one", b"calls nobody", "another digest", ABOUT)
    await store.saved.delete("two")
    await store.saved.delete(NAME)
    assert redis.zrange(keys.DEFINITIONS, 0, -1) == ["one"]


async def test_what_is_called_and_not_saved_is_unknown(store):
    await store.saved.put("one", b"calls", "digest", ABOUT._replace(calls=(NAME,)))
    with pytest.raises(UnknownDefinition):
        await store.saved.delete(NAME)


async def test_what_another_version_says_about_a_definition_is_read_as_far_as_it_is_known(
    store, redis
):
    await put(store, b"a")
    key, field = keys.saved_definition(NAME), "about:1"
    assert "calls" not in redis.hget(key, field)
    redis.hset(key, field, redis.hget(key, field)[:-1] + ',"later":[]}')

    assert (await store.saved.find(NAME)).about == ABOUT


async def test_where_nobody_can_say_who_uses_it_it_stays(store, redis):
    await put(store, b"a")
    redis.set(keys.schedules_of(NAME), "x")
    before = everything(redis)

    with pytest.raises(CorruptStore):
        await store.saved.delete(NAME)

    assert everything(redis) == before
