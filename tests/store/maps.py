"""Maps for the tests of the store: staged, opened and looked at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis as redis_py

from flowd.store import Store
from flowd.store.endings import ItemFailure, ItemPause, ItemRetry, Wait
from flowd.store.entries import Entry
from flowd.store.redis import keys
from tests.store.engine import Execution, Graph, ScriptedEngine, Worker


def mapping(**fields: Any) -> Graph:
    """One node, `fan`, with items of a list nobody reads."""
    return {"fan": {"map": {"over": "{{ input.rows }}", **fields}}}


@dataclass
class MapState:
    """All that Redis holds of the items of `fan`; what a test leaves out has to be empty.

    `items` are the states of those that have one, by index; `counters` those of its hash.
    """

    counters: dict[str, str]
    todo: Sequence[str] = field(default_factory=list)
    open: Sequence[str] = field(default_factory=list)
    items: dict[int, str] | None = None


def map_state(redis: redis_py.Redis, execution: Execution, n: int) -> MapState:
    names = [keys.node(execution.id, f"fan.{one}") for one in range(n)]
    states = dict(enumerate(redis.mget(names))) if names else {}
    counters = redis.hgetall(keys.map_of(execution.id, "fan"))
    said = ("n", "ended", "failed", "bytes", "failure", "stopped")
    return MapState(
        {one: counters[one] for one in said if counters.get(one, "0") != "0"},
        redis.lrange(keys.map_todo(execution.id, "fan"), 0, -1),
        sorted(redis.smembers(keys.map_open(execution.id, "fan")), key=int),
        {index: state for index, state in states.items() if state is not None},
    )


async def expand(store: Store, execution: Execution, n: int, **said: Any) -> bool:
    facts = {"window": 50, "max_failed": 0, "fail_fast": False, "bytes_max": 0} | said
    return await store.nodes.maps.expand(execution.id, "fan", n=n, **facts)


async def expanded(
    engine: ScriptedEngine, worker: Worker, n: int, **said: Any
) -> tuple[Execution, list[Entry]]:
    """A `fan` that waits for its items, and those that were opened."""
    execution, (fan,) = await engine.start_and_take(mapping(), worker)
    assert await engine.store.nodes.maps.stage(execution.id, "fan", list(range(n)))
    assert await expand(engine.store, execution, n, **said)
    assert await wait(worker, fan) in ("waiting", "woken")
    return execution, await worker.take()


async def wait(worker: Worker, fan: Entry) -> str:
    ending = Wait(fan, worker.start(fan).record, "items", 1)
    (outcome,) = (await worker.exchange(failures=[ending])).failed  # type: ignore[list-item]
    return outcome


async def fail(worker: Worker, *entries: Entry) -> list[str]:
    failures = [
        ItemFailure(
            entry,
            worker.completion(entry).node,
            worker.completion(entry).record,
            b'{"error":"boom"}',
        )
        for entry in entries
    ]
    return (await worker.exchange(failures)).completed


async def retry(worker: Worker, entry: Entry, pause_ms: int = 3_600_000) -> str:
    ending = ItemRetry(entry, worker.completion(entry).record, pause_ms, 1, "boom")
    (outcome,) = (await worker.exchange(failures=[ending])).failed  # type: ignore[list-item]
    return outcome


async def pause(worker: Worker, entry: Entry) -> str:
    """Say that an item is to be called again in an hour."""
    ending = ItemPause(entry, worker.completion(entry).record, "date", 1, 3_600_000)
    (outcome,) = (await worker.exchange(failures=[ending])).failed
    return outcome
