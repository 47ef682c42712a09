"""Saving: a version is a number that stands for the same bytes for as long as the name is saved."""

from __future__ import annotations

import asyncio

import pytest

from flowd.errors import CorruptStore, UnknownDefinition
from flowd.store.redis import keys
from flowd.store.saved import About
from tests.store.engine import everything

NAME = "report"
ABOUT = About(saved_ms=1, nodes=4, handlers="h")


async def put(store, text: bytes, name: str = NAME):
    return await store.saved.put(name, text, f"digest of {text.decode()}", ABOUT)


async def test_what_is_new_becomes_the_next_version_and_what_equals_the_latest_stays_it(
    store, redis, outcomes
):
    puts = [await put(store, text) for text in (b"a", b"a", b"b", b"a", b"a")]

    assert puts == [(1, True), (1, False), (2, True), (3, True), (3, False)]
    assert outcomes["put_definition"] == [
        ["saved", 1],
        ["unchanged", 1],
        ["saved", 2],
        ["saved", 3],
        ["unchanged", 3],
    ]
    assert set(redis.scan_iter()) == {keys.DEFINITIONS, keys.saved_definition(NAME)}
    for version, text in ((1, b"a"), (2, b"b"), (3, b"a"), (None, b"a")):
        found = await store.saved.find(NAME, version)
        assert (found.definition, found.version, found.latest) == (text, version or 3, 3)
        assert found.about == ABOUT


async def test_of_many_at_once_each_new_one_has_a_number_of_its_own(store):
    puts = await asyncio.gather(*(put(store, b"%d" % number) for number in range(20)))

    assert sorted(puts) == [(number, True) for number in range(1, 21)]


async def test_names_are_listed_in_their_order(store):
    for name in ("b", "a", "B", "a.b"):
        await put(store, b"x", name)

    rows, after = await store.saved.page(None, 3)
    assert ([row.name for row in rows], after) == (["B", "a", "a.b"], "a.b")
    rows, after = await store.saved.page(after, 3)
    assert ([row.name for row in rows], after) == (["b"], None)


@pytest.mark.parametrize("latest", ["x", "-1", "1.5", "9999999999", ""])
async def test_a_damaged_hash_is_named_and_nothing_is_written(store, redis, outcomes, latest):
    redis.hset(keys.saved_definition(NAME), "latest", latest)
    before = everything(redis)

    for ask in (put(store, b"a"), store.saved.find(NAME)):
        with pytest.raises(CorruptStore, match=NAME):
            await ask

    assert outcomes["put_definition"] == [["corrupt"]]
    assert everything(redis) == before


@pytest.mark.parametrize("key", [keys.DEFINITIONS, keys.saved_definition(NAME)])
async def test_a_key_of_another_type_is_named_and_nothing_is_written(store, redis, key):
    redis.set(key, "x")
    before = everything(redis)

    with pytest.raises(CorruptStore):
        await put(store, b"a")

    assert everything(redis) == before


async def test_what_was_never_saved_is_unknown(store):
    await put(store, b"a")

    for name, version in (("other", None), (NAME, 2), ("other", 1)):
        with pytest.raises(UnknownDefinition):
            await store.saved.find(name, version)
    with pytest.raises(UnknownDefinition):
        await store.saved.versions("other", None, 10)
