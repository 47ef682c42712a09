"""Burying: an entry no worker can make sense of is set aside with its bytes."""

from __future__ import annotations

import pytest

from flowd.store.entries import Garbage
from flowd.store.redis import keys
from tests.store.engine import CHAIN, GROUP, STREAM, everything


def raw_fields(redis) -> list[bytes]:
    """The fields of the only dead letter, as they were in the stream, by Redis's own msgpack."""
    raw = redis.eval(
        "return cmsgpack.unpack(redis.call('XRANGE', KEYS[1], '-', '+')[1][2][6])",
        1,
        keys.DEAD_LETTERS,
    )
    return [part.encode("utf-8", "surrogateescape") for part in raw]


async def take_garbage(engine, redis, fields, worker) -> Garbage:
    await engine.store.tasks.queues.ensure_groups()
    redis.xadd(STREAM, fields)
    (garbage,) = (await worker.exchange(read_max=1)).entries
    assert isinstance(garbage, Garbage)
    return garbage


@pytest.mark.parametrize(
    "fields",
    [
        {b"x": b"y"},
        {b"\xff\xfe\x00": b"\x80\r\n\x00", b"execution_id": b"\xc3\x28"},
        {f"field{number}".encode(): b"v" * 10 for number in range(9_000)},
        {b"huge": b"\x00\xff" * 500_000},
    ],
    ids=["foreign", "no text", "many fields", "a megabyte"],
)
async def test_a_buried_entry_leaves_the_stream_and_keeps_its_bytes(
    engine, redis, outcomes, fields
):
    worker = engine.worker()
    garbage = await take_garbage(engine, redis, fields, worker)

    await engine.store.tasks.bury_entry(garbage.name, "it makes no sense")

    assert outcomes["bury_entry"] == ["buried"]
    ((_, letter),) = redis.xrange(keys.DEAD_LETTERS)
    assert (letter["reason"], letter["entry_id"]) == ("it makes no sense", garbage.name)
    assert raw_fields(redis) == [part for pair in fields.items() for part in pair]
    assert redis.xlen(STREAM) == 0
    assert redis.xpending(STREAM, GROUP)["pending"] == 0


async def test_an_entry_is_buried_once(engine, redis, outcomes):
    worker = engine.worker()
    garbage = await take_garbage(engine, redis, {"x": "y"}, worker)
    await engine.store.tasks.bury_entry(garbage.name, "first")
    before = everything(redis)

    await engine.store.tasks.bury_entry(garbage.name, "second")

    assert outcomes["bury_entry"] == ["buried", "gone"]
    assert everything(redis) == before


async def test_an_entry_that_was_deleted_by_hand_leaves_the_pending_list(engine, redis, outcomes):
    worker = engine.worker()
    garbage = await take_garbage(engine, redis, {"x": "y"}, worker)
    redis.xdel(STREAM, garbage.name)

    await engine.store.tasks.bury_entry(garbage.name, "late")

    assert outcomes["bury_entry"] == ["gone"]
    assert redis.xpending(STREAM, GROUP)["pending"] == 0
    assert not redis.exists(keys.DEAD_LETTERS)


async def test_an_entry_of_a_group_that_is_gone_is_buried_too(engine, redis, outcomes):
    """It was once found again in every round, and said to be buried each time."""
    worker = engine.worker()
    garbage = await take_garbage(engine, redis, {"x": "y"}, worker)
    redis.xgroup_destroy(STREAM, GROUP)

    await engine.store.tasks.bury_entry(garbage.name, "orphaned")

    assert outcomes["bury_entry"] == ["buried"]
    assert redis.xlen(STREAM) == 0
    assert raw_fields(redis) == [b"x", b"y"]


async def test_an_entry_that_cannot_be_kept_is_not_deleted(engine, redis):
    worker = engine.worker()
    garbage = await take_garbage(engine, redis, {"x": "y"}, worker)
    redis.set(keys.DEAD_LETTERS, "no stream")
    before = everything(redis)

    with pytest.raises(Exception, match="WRONGTYPE"):
        await engine.store.tasks.bury_entry(garbage.name, "it makes no sense")

    assert everything(redis) == before


async def test_the_other_entries_stay(engine, redis):
    worker = engine.worker()
    garbage = await take_garbage(engine, redis, {"x": "y"}, worker)
    execution, _ = await engine.start_and_take(CHAIN, worker)

    await engine.store.tasks.bury_entry(garbage.name, "it makes no sense")

    assert execution.state().held == {"w1": ["a#1"]}
    assert redis.xlen(STREAM) == 1
