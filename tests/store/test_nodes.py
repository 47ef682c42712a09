"""Nodes as they stand, and those of them that somebody has damaged."""

from __future__ import annotations

import pytest
import redis as redis_py

from flowd.store import Store
from flowd.store.attempt_records import NO_RECORD, AttemptRecord, parse_record
from flowd.store.nodes import NodeRow, RetryStanding
from flowd.store.redis import keys
from tests.store.engine import CHAIN, ScriptedEngine


async def rows(store: Store, execution_id: str, *node_ids: str) -> list[NodeRow]:
    return await store.nodes.rows(execution_id, await store.nodes.states(execution_id, node_ids))


async def test_a_failed_node_has_its_record_and_its_error(
    store: Store, engine: ScriptedEngine
) -> None:
    worker = engine.worker("w1")
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await worker.fail(entry)

    record = AttemptRecord(1, entry.queued_ms, 3, 7, "w1")
    assert await rows(store, execution.id, "a", "b") == [
        NodeRow("a", "FAILED", record, "boom", began_ms=entry.queued_ms + 3),
        NodeRow("b", "FAILED", NO_RECORD, "not run: it depends on 'a', which failed"),
    ]
    assert (record.started_ms, record.finished_ms) == (entry.queued_ms + 3, entry.queued_ms + 10)


async def test_a_node_began_with_the_first_of_its_attempts_that_started(
    store: Store, engine: ScriptedEngine, redis: redis_py.Redis
) -> None:
    """Of many attempts the first is kept with the last; it may never have started."""
    execution = await engine.submit(CHAIN)
    redis.hset(execution.key(":attempts"), mapping={"a": "50 900 1 2 w", "b": "3 900 - - w"})
    history = {"a 1": "1 100 5 2 w\nboom", "a 40": "40 200 1 1 w\n"}
    redis.hset(keys.history(execution.id), mapping=history)

    async def began_ms() -> list[int | None]:
        return [row.began_ms for row in await rows(store, execution.id, "a", "b", "c")]

    assert await began_ms() == [105, None, None]
    redis.hset(keys.history(execution.id), mapping={"a 1": "1 100 - - w\n", "b 2": "2 300 1 - w\n"})
    assert await began_ms() == [201, 301, None]
    redis.delete(keys.history(execution.id))
    redis.set(keys.history(execution.id), "x")
    assert await began_ms() == [901, None, None]


async def test_damage_is_none_and_hides_no_other(
    store: Store, engine: ScriptedEngine, redis: redis_py.Redis
) -> None:
    worker = engine.worker()
    execution, entries = await engine.start_and_take(CHAIN, worker)
    await worker.complete(*entries)
    redis.set(execution.key(":node:b"), "SLEEPING")
    redis.delete(execution.key(":node:c"))
    redis.rpush(execution.key(":node:c"), "x")
    redis.delete(execution.key(":attempts"))
    redis.set(execution.key(":attempts"), "x")
    redis.set(keys.run(execution.id), "x")
    redis.set(keys.output(execution.id, "b"), "{")

    shown = [
        (row.node_id, row.state, row.record) for row in await rows(store, execution.id, *"abc")
    ]
    assert shown == [("a", "COMPLETED", NO_RECORD), ("b", None, NO_RECORD), ("c", None, NO_RECORD)]
    assert await store.nodes.outputs(execution.id, list("abc")) == {"a": {"node": "a"}}
    assert await store.nodes.retries(execution.id, list("abc")) == {}


@pytest.mark.parametrize("output", ["", "{", "[]", '{"error": 1}', "x" * 20_000, None])
async def test_an_error_that_is_none(store: Store, engine: ScriptedEngine, redis, output) -> None:
    execution = await engine.submit(CHAIN)
    redis.set(execution.key(":node:a"), "FAILED")
    if output is None:
        redis.hset(keys.output(execution.id, "a"), "x", "y")
    else:
        redis.set(keys.output(execution.id, "a"), output)
    assert (await rows(store, execution.id, "a"))[0].error is None


async def test_retries_know_what_has_failed_and_when_it_goes_on(
    store: Store, engine, redis
) -> None:
    execution = await engine.submit(CHAIN)
    redis.hset(keys.run(execution.id), mapping={"failures:a": 2, "error:a": "why", "failures:b": 1})
    redis.zadd(keys.RETRIES, {f"{execution.id} a": 1234.0})
    assert await store.nodes.retries(execution.id, list("abc")) == {
        "a": RetryStanding(2, "why", 1234),
        "b": RetryStanding(1, None, None),
    }
    redis.zadd(keys.RETRIES, {f"{execution.id} a": "inf"})
    redis.hset(keys.run(execution.id), "failures:b", "often")
    assert await store.nodes.retries(execution.id, list("abc")) == {
        "a": RetryStanding(2, "why", None)
    }


@pytest.mark.parametrize(
    ("text", "record"),
    [
        ("2 100 5 7 w1", AttemptRecord(2, 100, 5, 7, "w1")),
        ("2 100 5 - a name", AttemptRecord(2, 100, 5, None, "a name")),
        ("2 100 - - -", AttemptRecord(2, 100, None, None, None)),
        (None, None),
        ("", None),
        ("2", None),
        ("x 1 2 3 w", None),
        ("1 x y z w", AttemptRecord(1, None, None, None, "w")),
    ],
)
def test_a_record(text: str | None, record: AttemptRecord | None) -> None:
    assert parse_record(text) == record
