"""The stream of events as it is read: pages, places within an entry, a wait for what is next."""

from __future__ import annotations

import asyncio

import pytest

from flowd.store.events import (
    BEGINNING,
    Position,
    StoredEvent,
    behind,
    execution_ids,
    parse_event,
    parse_event_id,
)
from flowd.store.redis import keys

AN_ID = "0123456789ab0123456789ab"


def happen(redis, *parts, entry_id="*"):
    return redis.execute_command("XADD", keys.EVENTS, entry_id, *parts)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("12-0", Position(12, 0, 0)),
        ("12-3.7", Position(12, 3, 7)),
        ("", None),
        ("12", None),
        ("12-", None),
        ("12-0.x", None),
        ("-1-0", None),
        ("１２-0", None),
        ("9" * 40 + "-0", None),
    ],
)
def test_an_event_id_names_an_entry_and_a_place_in_it(text, position):
    assert parse_event_id(text) == position
    assert position is None or position.event_id == text


def test_positions_are_in_the_order_of_what_happened():
    order = ["1-0", "1-0.1", "1-0.10", "1-1", "2-0", "10-0"]
    positions = [parse_event_id(text) for text in order]
    assert sorted(positions) == positions
    assert positions[2] < behind("1-0") < positions[3]
    assert positions[0] > BEGINNING


def test_an_event_says_what_is_known_and_no_more():
    entry = (
        "12-0",
        [
            *("execution.triggered", AN_ID),
            *("node.started", f"{AN_ID} a 2 10 1 - w 1"),
            *("node.requeued", f"{AN_ID} b"),
            *("of.tomorrow", ""),
        ],
    )
    end = behind("12-0")
    assert [parse_event(entry, end, place) for place in range(4)] == [
        StoredEvent(Position(12, 0, 0), "execution.triggered", AN_ID),
        StoredEvent(Position(12, 0, 1), "node.started", AN_ID, "a", 2, 10, 1, None, "w 1"),
        StoredEvent(Position(12, 0, 2), "node.requeued", AN_ID, "b"),
        StoredEvent(Position(12, 0, 3), "of.tomorrow", ""),
    ]
    assert list(execution_ids(entry)) == [(0, AN_ID), (1, AN_ID), (2, AN_ID), (3, "")]


async def test_a_page_begins_behind_a_position_even_within_an_entry(store, redis):
    ids = [happen(redis, "node.completed", f"{AN_ID} n{one}") for one in range(5)]

    page = await store.events.read(BEGINNING, 3)
    assert ([entry_id for entry_id, _ in page.entries], page.is_last) == (ids[:3], False)
    page = await store.events.read(behind(ids[2]), 3)
    assert ([entry_id for entry_id, _ in page.entries], page.is_last) == (ids[3:], True)
    # In the middle of an entry, so that entry comes again.
    page = await store.events.read(parse_event_id(ids[4]), 3)
    assert [entry_id for entry_id, _ in page.entries] == ids[4:]
    assert await store.events.newest() == behind(ids[-1])


async def test_what_the_cap_took_is_noticed(store, redis):
    ids = [happen(redis, "node.completed", f"{AN_ID} n{one}") for one in range(5)]
    redis.xtrim(keys.EVENTS, maxlen=2, approximate=False)

    assert (await store.events.read(behind(ids[1]))).is_broken(behind(ids[1]))
    assert not (await store.events.read(behind(ids[3]))).is_broken(behind(ids[3]))


async def test_without_a_stream_there_is_nothing(store):
    assert await store.events.newest() == BEGINNING
    page = await store.events.read(BEGINNING)
    assert (page.entries, page.is_last, page.oldest_id) == ([], True, None)


async def test_a_tail_hears_at_once_and_gives_up_in_time(store, redis):
    tail = store.events.open_tail()
    try:
        assert await tail.next(BEGINNING, block_ms=1) == []
        waiting = asyncio.create_task(tail.next(BEGINNING))
        await asyncio.sleep(0)
        entry_id = happen(redis, "execution.submitted", AN_ID)
        assert await waiting == [(entry_id, ["execution.submitted", AN_ID])]
        assert await tail.next(behind(entry_id), block_ms=1) == []
    finally:
        await tail.close()


async def test_an_event_of_a_wait_says_what_wakes_the_node_and_what_has(engine, store):
    worker = engine.worker()
    execution, (a,) = await engine.start_and_take({"a": []}, worker)
    await worker.wait(a, due_ms=0)
    await store.retries.dispatch()

    found = [
        parse_event(entry, behind(entry[0]), place)
        for entry in (await store.events.read(BEGINNING)).entries
        for place, _ in execution_ids(entry)
    ]
    said = {one.type: one for one in found if one.node_id == "a"}
    assert (said["node.waiting"].waits_for, said["node.waiting"].attempt) == ("date", 1)
    assert (said["node.woken"].woken_by, said["node.woken"].execution_id) == ("date", execution.id)
