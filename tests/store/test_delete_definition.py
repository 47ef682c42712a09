"""Deleting what is saved: all versions at once, and never while a schedule runs it."""

from __future__ import annotations

import pytest

from flowd.errors import CorruptStore, DefinitionInUse, UnknownDefinition
from flowd.store.redis import keys
from tests.store.engine import everything
from tests.store.test_put_definition import NAME, put


async def test_nothing_of_it_is_left(store, redis, outcomes):
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


async def test_where_nobody_can_say_who_uses_it_it_stays(store, redis):
    await put(store, b"a")
    redis.set(keys.schedules_of(NAME), "x")
    before = everything(redis)

    with pytest.raises(CorruptStore):
        await store.saved.delete(NAME)

    assert everything(redis) == before
