"""Executions in a list: all of them once, filtered, and no damaged key in the way."""

from __future__ import annotations

import time
from collections.abc import Iterator
from itertools import count

import orjson
import pytest
import redis as redis_py

from flowd.errors import CorruptExecution, CorruptStore, UnknownExecution
from flowd.store import Store, listing, open_store
from flowd.store.listing import Filters
from flowd.store.redis import keys
from flowd.workflow.states import ExecutionState
from tests.redis_calls import listen_to_calls
from tests.store.engine import CHAIN, ScriptedEngine, compiled

ALL = Filters()
_NUMBERS: Iterator[int] = count()


def id_at(ms: int) -> str:
    return f"{ms:012x}{next(_NUMBERS):012x}"


def write(redis, ms, *, status="PENDING", handler="noop", **run):
    """An execution as the scripts leave it, as far as a list reads it."""
    execution_id = id_at(ms)
    definition = {"name": "x", "dag": {"nodes": [{"id": "a", "handler": handler}]}}
    run = {"name": "x", "nodes": 1, "submitted_ms": ms, "plan": handler, **run}
    redis.set(keys.status(execution_id), status)
    redis.set(keys.definition(execution_id), orjson.dumps(definition))
    redis.hset(keys.run(execution_id), mapping=run)
    redis.zadd(keys.EXECUTIONS, {execution_id: 0})
    return execution_id


async def walk(store: Store, filters: Filters = ALL, count_max: int = 100) -> list[str]:
    """The ids of all pages."""
    found: list[str] = []
    after = None
    while True:
        rows, after = await store.executions.listing.page(filters, count_max, after)
        found += [row.execution_id for row in rows]
        if after is None:
            return found


async def test_ten_thousand_are_listed_while_new_ones_arrive_none_twice_none_missed(
    store: Store, redis: redis_py.Redis
) -> None:
    now_ms = time.time_ns() // 1_000_000 - 60_000
    ids = [id_at(now_ms + number // 3) for number in range(10_000)]
    with redis.pipeline(transaction=False) as pipe:
        for execution_id in ids:
            pipe.set(keys.status(execution_id), "COMPLETED")
        pipe.zadd(keys.EXECUTIONS, dict.fromkeys(ids, 0))
        pipe.execute()
    definition, plan = compiled(CHAIN)
    found: list[str] = []
    arrived: list[str] = []
    after = None
    while True:
        rows, after = await store.executions.listing.page(ALL, 97, after)
        found += [row.execution_id for row in rows]
        arrived += [await store.submissions.submit_workflow(definition, plan) for _ in range(3)]
        if after is None:
            break
    assert found == sorted(ids, reverse=True)
    listed = (await walk(store))[: len(arrived)]
    assert sorted(listed) == sorted(arrived)
    # Those of one millisecond stand as they were submitted.
    milliseconds = [one[:12] for one in listed]
    assert milliseconds == sorted(milliseconds, reverse=True)


async def test_a_row_says_what_there_is_to_say(store: Store, engine: ScriptedEngine, redis) -> None:
    first = await engine.start(CHAIN)
    worker = engine.worker()
    await engine.finish(worker)
    rows, after = await store.executions.listing.page(ALL, 10, None)

    (row,) = rows
    run = redis.hgetall(first.key(":run"))
    assert after is None
    assert (row.execution_id, row.status, row.name, row.nodes) == (
        first.id,
        ExecutionState.COMPLETED,
        "test",
        3,
    )
    times = [row.submitted_ms, row.triggered_ms, row.finished_ms]
    assert times == [int(run[one]) for one in ("submitted_ms", "triggered_ms", "finished_ms")]
    assert row.duration_ms == row.finished_ms - row.triggered_ms


@pytest.mark.parametrize("count_max", [1, 2, 3, 4, 5])
async def test_filters_hold_whatever_the_page(store: Store, redis, count_max) -> None:
    a = write(redis, 1000, status="RUNNING", name="night build", handler="llm")
    b = write(redis, 2000, status="FAILED", name="night", handler="llm")
    c = write(redis, 3000, status="COMPLETED", name="day")
    d = write(redis, 4000, status="RUNNING", name="day 2")
    wanted = {
        ALL: [d, c, b, a],
        Filters(statuses=frozenset({"RUNNING"})): [d, a],
        Filters(statuses=frozenset({"FAILED", "COMPLETED"})): [c, b],
        Filters(name="night"): [b],
        Filters(name="night*"): [b, a],
        Filters(name="*"): [d, c, b, a],
        Filters(name="nigh"): [],
        Filters(handler="llm"): [b, a],
        Filters(handler="nobody"): [],
        Filters(submitted_after_ms=2000): [d, c, b],
        Filters(submitted_before_ms=3000): [b, a],
        Filters(submitted_after_ms=2000, submitted_before_ms=3000): [b],
        Filters(statuses=frozenset({"RUNNING"}), name="day*", handler="noop"): [d],
    }
    found = {one: await walk(store, one, count_max) for one in wanted}
    assert found == wanted


async def test_times_are_those_of_the_submission_not_of_the_id(store: Store, redis) -> None:
    slow = write(redis, 10_000, submitted_ms=12_000)
    old = write(redis, 10_500)
    redis.hdel(keys.run(old), "submitted_ms")
    assert await walk(store, Filters(submitted_after_ms=11_000)) == [slow]
    assert await walk(store, Filters(submitted_before_ms=11_000)) == [old]


async def test_a_page_looks_at_so_many_and_says_where_it_stopped(
    store: Store, redis, monkeypatch
) -> None:
    monkeypatch.setattr(listing, "SCANNED_MAX", 10)
    ids = [write(redis, 1000 + number, status="COMPLETED") for number in range(35)]
    ids[3] = wanted = write(redis, 1, status="FAILED")
    failed = Filters(statuses=frozenset({"FAILED"}))

    pages, after = [], None
    while True:
        page = await store.executions.listing.page(failed, 5, after)
        pages.append([row.execution_id for row in page.rows])
        if (after := page.next_id) is None:
            break
    assert pages == [[], [], [], [wanted]]


async def test_definitions_are_read_once_for_their_handlers_and_not_without_end(
    store: Store, redis, monkeypatch
) -> None:
    monkeypatch.setattr(listing, "DEFINITION_BYTES_MAX", 1)
    monkeypatch.setattr(listing, "_SLICE", 3)
    for number in range(7):
        write(redis, 1000 + number, plan=f"plan {number}", handler="a" if number else "b")
    by_handler = Filters(handler="b")
    first = await store.executions.listing.page(by_handler, 5, None)
    assert (first.rows, len(store.executions.listing._handlers)) == ([], 1)
    assert len(await walk(store, by_handler)) == 1

    # Equal definitions are known by their digest.
    redis.delete(*redis.keys("workflow:????????????????????????"))
    assert len(await walk(store, by_handler)) == 1


async def test_damaged_executions_stand_in_the_list_and_hide_no_other(store: Store, redis) -> None:
    good = write(redis, 5000)
    of_list = write(redis, 4000)
    redis.delete(keys.status(of_list))
    redis.rpush(keys.status(of_list), "x")
    nonsense = write(redis, 3000, status="SLEEPING", nodes="many", finished_ms="-", rerun_of="you")
    without_run = write(redis, 2000, status="RUNNING")
    redis.set(keys.run(without_run), "no hash")
    redis.set(keys.definition(without_run), "{")
    redis.hset(keys.run(nonsense), "name", b"\xff\x00")
    deleted = write(redis, 1000)
    redis.delete(keys.status(deleted))
    redis.zadd(keys.EXECUTIONS, {"not an id": 0, b"\xff": 0, "": 0})

    rows = (await store.executions.listing.page(ALL, 10, None)).rows
    shown = [(row.execution_id, row.status, row.name, row.nodes) for row in rows]
    assert shown == [
        (good, "PENDING", "x", 1),
        (of_list, None, "x", 1),
        (nonsense, None, "\\xff\x00", None),
        (without_run, "RUNNING", None, None),
    ]
    assert await walk(store, ALL, 1) == [good, of_list, nonsense, without_run]
    assert await walk(store, Filters(handler="noop")) == [good, of_list, nonsense]


async def test_an_index_of_another_type_is_named(store: Store, redis) -> None:
    redis.set(keys.EXECUTIONS, "x")
    with pytest.raises(CorruptStore, match="'flowd:executions'"):
        await store.executions.listing.page(ALL, 10, None)


async def test_a_single_execution(store: Store, redis) -> None:
    execution_id = write(
        redis, 1000, status="FAILED", error="why", **{"tokens:prompt": 3, "tokens:spent": 9}
    )
    row, details = await store.executions.listing.execution(execution_id)
    assert (row.status, row.submitted_ms) == ("FAILED", 1000)
    assert (details.error, details.usage.prompt, details.usage.spent) == ("why", 3, 9)

    with pytest.raises(UnknownExecution):
        await store.executions.listing.execution(id_at(1))
    redis.set(keys.status(execution_id), "x")
    with pytest.raises(CorruptExecution, match="its status is 'x'"):
        await store.executions.listing.execution(execution_id)
    redis.delete(keys.status(execution_id))
    redis.hset(keys.status(execution_id), "x", "y")
    with pytest.raises(CorruptExecution, match="another type"):
        await store.executions.listing.execution(execution_id)


async def test_no_command_of_a_page_has_more_than_a_thousand_keys(
    settings, redis, monkeypatch
) -> None:
    longest = 0

    async def counting(commands, ask):
        nonlocal longest
        longest = max([longest, *(len(command) for command in commands)])
        return await ask()

    listen_to_calls(monkeypatch, counting)
    with redis.pipeline(transaction=False) as pipe:
        for number in range(1200):
            write(pipe, 1000 + number)
        pipe.execute()
    store = open_store(settings)
    assert len(await walk(store, ALL, 1000)) == 1200
    assert len(await walk(store, Filters(handler="noop"), 1000)) == 1200
    await store.close()
    assert longest <= 1002


@pytest.mark.parametrize("filters", [ALL, Filters(statuses=frozenset({"PENDING"}))])
async def test_children_are_listed_by_their_own_time_although_their_ids_have_that_of_their_parent(
    store: Store, redis: redis_py.Redis, filters: Filters
) -> None:
    now_ms = time.time_ns() // 1_000_000 - 60_000
    before, parent = write(redis, now_ms - 1), write(redis, now_ms, submitted_ms=now_ms)
    late, early, middle = (
        write(redis, now_ms, submitted_ms=now_ms + ms, parent=f"{parent} call 1 {parent} 2")
        for ms in (3_000, 1_000, 2_000)
    )
    after = write(redis, now_ms + 1)

    assert await walk(store, filters) == [after, late, middle, early, parent, before]
    assert sorted(await walk(store, filters, 2)) == sorted(
        [after, late, middle, early, parent, before]
    )


async def test_those_that_are_no_child_are_listed_alone(
    store: Store, redis: redis_py.Redis
) -> None:
    now_ms = time.time_ns() // 1_000_000 - 60_000
    root = write(redis, now_ms)
    child = write(redis, now_ms + 1, parent=f"{root} call 1 {root} 2")
    other = write(redis, now_ms + 2, status="FAILED")

    assert await walk(store, Filters(roots_only=True)) == [other, root]
    assert await walk(store, Filters(roots_only=True), 1) == [other, root]
    assert await walk(store) == [other, child, root]
