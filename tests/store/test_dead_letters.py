"""Dead letters, read as the scripts wrote them."""

from __future__ import annotations

import pytest
import redis as redis_py

from flowd.errors import CorruptStore, UnknownDeadLetter
from flowd.store import Store
from flowd.store.dead_letters import RAW_CHARS_MAX, is_letter_id, unpack_texts
from flowd.store.redis import keys
from tests.store.engine import CHAIN, STREAM, ScriptedEngine


async def bury(store: Store, redis: redis_py.Redis, *fields: object) -> None:
    await store.tasks.queues.ensure_groups()
    entry_id = redis.execute_command("XADD", STREAM, "*", *fields)
    await store.tasks.bury_entry(entry_id, "it names no execution_id and node_id")


async def test_a_node_that_was_given_up_is_named_with_its_attempt(
    store: Store, engine: ScriptedEngine
) -> None:
    worker = engine.worker("w9")
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await worker.exchange(failures=[worker.failure(entry, "three workers died")])

    ((letter,), next_id) = await store.health.dead_letters.page(10)
    assert (letter.reason, letter.execution_id, letter.node_id) == (
        "three workers died",
        execution.id,
        "a",
    )
    assert letter.attempt is not None
    assert (letter.attempt.attempt, letter.attempt.worker) == (1, "w9")
    assert (letter.entry_id, letter.fields, next_id) == (entry.name, None, None)
    assert await store.health.dead_letters.letter(letter.letter_id) == letter


async def test_a_buried_entry_shows_all_its_fields_whatever_their_bytes(
    store: Store, redis: redis_py.Redis
) -> None:
    long = "ä" * 70_000
    await bury(
        store, redis, "text", "plain", "bytes", b"\xff\x00\x80", "long", long, "", "", "é" * 20, "x"
    )
    ((letter,), _) = await store.health.dead_letters.page(10)

    assert letter.fields == [
        ("text", "plain"),
        ("bytes", "\\xff\x00\\x80"),
        ("long", long[:RAW_CHARS_MAX] + "…"),
        ("", ""),
        ("é" * 20, "x"),
    ]
    assert (letter.execution_id, letter.node_id, letter.attempt) == (None, None, None)


async def test_many_fields_are_many_fields(store: Store, redis: redis_py.Redis) -> None:
    await bury(store, redis, *(f"f{number}" for number in range(60)))
    await bury(store, redis, *(f"f{number}" for number in range(200_000)))
    (many, few), _ = await store.health.dead_letters.page(10)
    assert few.fields == [(f"f{number}", f"f{number + 1}") for number in range(0, 60, 2)]
    assert many.fields is not None
    assert len(many.fields) == 100


async def test_pages_have_each_letter_once(store: Store, redis: redis_py.Redis) -> None:
    for number in range(7):
        await bury(store, redis, "number", number)
    found, after = [], None
    while True:
        letters, after = await store.health.dead_letters.page(3, after)
        found.append([letter.fields[0][1] for letter in letters])
        if after is None:
            break
        # What comes while somebody reads is on none of the pages behind.
        await bury(store, redis, "number", "new")
    assert found == [["6", "5", "4"], ["3", "2", "1"], ["0"]]


async def test_one_is_deleted_and_then_all(store: Store, redis: redis_py.Redis) -> None:
    for number in range(4):
        await bury(store, redis, "number", number)
    letters, _ = await store.health.dead_letters.page(10)
    await store.health.dead_letters.delete(letters[1].letter_id)
    for method in (store.health.dead_letters.delete, store.health.dead_letters.letter):
        with pytest.raises(UnknownDeadLetter):
            await method(letters[1].letter_id)
    assert (await store.health.dead_letters.page(10)).letters == [letters[0], *letters[2:]]
    assert await store.health.dead_letters.purge() == 3
    assert await store.health.dead_letters.purge() == 0
    assert (await store.health.dead_letters.page(10)).letters == []


async def test_a_key_of_another_type_is_named(store: Store, redis: redis_py.Redis) -> None:
    redis.set(keys.DEAD_LETTERS, "x")
    calls = [
        store.health.dead_letters.page(1),
        store.health.dead_letters.letter("1-1"),
        store.health.dead_letters.delete("1-1"),
        store.health.dead_letters.purge(),
    ]
    for call in calls:
        with pytest.raises(CorruptStore, match="'flowd:dead_letters'"):
            await call


async def test_what_somebody_else_put_there_is_shown_as_far_as_it_goes(
    store: Store, redis: redis_py.Redis
) -> None:
    redis.xadd(keys.DEAD_LETTERS, {"x": b"\xff", "raw": b"\x92\xa1", "attempt": "many times"})
    redis.xadd(keys.DEAD_LETTERS, {"reason": b"\xff", "execution_id": "me", "node_id": b"\xfe"})
    (second, first), _ = await store.health.dead_letters.page(10)
    assert (first.reason, first.fields, first.attempt) == ("", [("", "")], None)
    assert (second.reason, second.execution_id, second.node_id) == ("\\xff", None, "\\xfe")


@pytest.mark.parametrize(
    "packed", [b"", b"\x90", b"\xc0", b"\x91", b"\x91\xc3", b"\xdc\x00", b"\xdd\xff\xff\xff\xff"]
)
def test_what_is_no_list_of_strings_has_none(packed: bytes) -> None:
    assert unpack_texts(packed) == []


@pytest.mark.parametrize("text", ["", "1", "1-", "-1", "1-1-1", "1-x", "１-1", "1-1\n", "9" * 40])
def test_what_is_no_id_is_not_asked_for(text: str) -> None:
    assert not is_letter_id(text)
