"""What an execution costs the server on its way, in commands: those of the engine's main street are
few, and a batch shares what it can."""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Any

import pytest

from flowd.store.entries import parse_entry
from flowd.store.limits import Limit
from flowd.workflow.children import Parent
from tests.store.engine import DIAMOND
from tests.store.limits import BROAD, asking_for, holders, holding, start
from tests.store.test_start_children import start_together


async def commands_of(redis: Any, act: Awaitable[Any]) -> dict[str, int]:
    """The commands that scripts have called meanwhile, and how often."""
    redis.config_resetstat()
    await act
    calls = {
        name.removeprefix("cmdstat_"): stats["calls"]
        for name, stats in redis.info("commandstats").items()
    }
    around = {"evalsha", "multi", "exec", "xreadgroup", "config|resetstat", "info"}
    return {name: calls[name] for name in sorted(calls.keys() - around)}


def each_of_three(few: dict[str, int], many: dict[str, int]) -> dict[str, float]:
    """What each costs where there are three more of them."""
    more = {name: (many[name] - few[name]) / 3 for name in few}
    return {name: count for name, count in more.items() if count}


async def test_a_workflow_is_stored_by_as_few_commands_however_many_nodes_it_has(engine, redis):
    await engine.submit({"a": []})

    for graph in ({"a": []}, DIAMOND):
        assert await commands_of(redis, engine.submit(graph)) == {
            "exists": 1, "hset": 1, "mset": 1, "xadd": 1, "zadd": 3,
        }  # fmt: skip


async def test_a_trigger_writes_the_states_of_an_execution_and_its_roots_at_once(engine, redis):
    executions = engine.store.executions
    await engine.start({"a": []})
    one = await engine.submit({"a": [], "b": [], "c": ["a", "b"]})

    assert await commands_of(redis, executions.trigger_workflow(one.id)) == {
        "get": 1, "hmget": 1, "hset": 1, "mset": 1, "sadd": 1, "type": 1, "xadd": 3, "zrem": 1,
    }  # fmt: skip


async def test_a_node_that_opens_two_costs_eight_commands(engine, redis):
    worker = engine.worker()
    await worker.complete(*(await engine.start_and_take({"x": []}, worker))[1])
    _, (entry,) = await engine.start_and_take(DIAMOND, worker)

    assert await commands_of(redis, worker.complete(entry)) == {
        "hincrby": 1, "hset": 1, "mget": 1, "mset": 1, "xack": 1, "xadd": 3, "xdel": 1,
    }  # fmt: skip


async def test_a_child_costs_what_is_its_own_and_the_rest_is_done_for_all_at_once(
    engine, store, redis
):
    """Its keys were written by a call of its own, and what its node has been through, too."""
    worker, costs, of_ends = engine.worker(), [], []
    await engine.submit({"x": []})
    # The first time scripts are loaded.
    for count in (1, 2, 5):
        nodes = {f"n{one}": [] for one in range(count)}
        parent, entries = await engine.start_and_take(nodes, worker)
        wanted = [Parent(parent.id, one, 1) for one in nodes]
        costs.append(await commands_of(redis, start_together(store, redis, wanted, {"x": []})))
        await worker.wait_together(entries, "child")
        children = await worker.take()
        of_ends.append(await commands_of(redis, worker.complete(*children)))
        await worker.complete(*await worker.take())

    assert each_of_three(*costs[1:]) == {"hset": 1, "xadd": 1}
    assert each_of_three(*of_ends[1:]) == {"hset": 2, "hincrby": 1, "hmget": 1, "xadd": 1}


async def test_a_place_of_its_own_costs_what_is_written_of_it_alone(engine, redis):
    """What all places and all nodes write into is written once, whatever there is."""
    worker, asked, ended = engine.worker(), [], []
    await engine.store.tasks.limits.put(Limit("api", max=1))
    # The first time scripts are loaded.
    for count in (1, 2, 5):
        _, entries = await engine.start_and_take({f"n{one}": [] for one in range(count)}, worker)
        asking = [asking_for(one, f"api/{one.node_id}") for one in entries]
        asked.append(await commands_of(redis, engine.store.tasks.limits.admit(asking)))
        ended.append(await commands_of(redis, worker.complete(*holding(entries))))

    assert each_of_three(*asked[1:]) == {"xrange": 1, "zadd": 1, "zcard": 2}
    assert each_of_three(*ended[1:]) == {"zcard": 2, "zrem": 1}
    assert redis.keys("flowd:limit*") == ["flowd:limits"]


async def test_who_gives_places_back_costs_an_entry_for_each_that_begins(engine, redis):
    worker, _, entries = await start(engine, BROAD, max=8)
    # The first time scripts are loaded.
    await worker.complete(entries[0])

    two = await commands_of(redis, worker.complete(*entries[1:3]))
    five = await commands_of(redis, worker.complete(*entries[3:]))

    assert each_of_three(two, five) == {"xadd": 1}
    assert len(holders(redis)) == 8


async def test_what_nobody_waits_for_ends_together(engine, redis):
    worker = engine.worker()
    await worker.complete(*(await engine.start_and_take({"x": []}, worker))[1])
    executions = [await engine.start({"a": []}) for _ in range(5)]
    entries = await worker.take()

    assert await commands_of(redis, worker.complete(*entries)) == {
        "hincrby": 5 + 1, "hmget": 5, "hset": 5 + 5, "mget": 1, "mset": 1,
        "srem": 1, "xack": 1, "xadd": 1, "xdel": 1, "zadd": 2,
    }  # fmt: skip
    assert {one.state().status for one in executions} == {"COMPLETED"}


async def test_what_ends_beside_others_ends_as_it_has_to(engine, redis):
    worker = engine.worker()
    failed = await engine.start({"bad": [], "good": []})
    bad, good = await worker.take()
    await worker.fail(bad)
    plain = await engine.start({"a": []})
    paused = await engine.start({"a": []})
    called = await engine.submit({"a": []}, callback={"url": "http://127.0.0.1:9/"})
    await engine.store.executions.trigger_workflow(called.id)
    entries = [good, *await worker.take()]
    await engine.store.lifecycle.pause_execution(paused.id)

    assert await worker.complete(*entries) == ["failed", "finished", "finished", "finished"]

    statuses = [one.state().status for one in (failed, plain, paused, called)]
    assert statuses == ["FAILED", "COMPLETED", "COMPLETED", "COMPLETED"]
    assert redis.zrange("flowd:status:PAUSED", 0, -1) == []
    assert redis.zrange("flowd:callbacks", 0, -1) == [called.id]
    ended = {plain.id, paused.id, called.id}
    assert set(redis.zrange("flowd:status:COMPLETED", 0, -1)) == ended
    assert set(redis.zrange("flowd:finished", 0, -1)) == {failed.id, *ended}
    assert redis.hget("flowd:metrics", "executions COMPLETED") == "3"
    assert redis.scard("workflows:active") == 0


@pytest.mark.parametrize("attempt", ["1", "2", "x", ""])
@pytest.mark.parametrize("execution_id", ["01a22a1b8834ceef1a752a62", "nobody"])
@pytest.mark.parametrize("node_id", ["a", ""])
def test_an_entry_says_the_same_in_any_order(execution_id, node_id, attempt):
    usual = ["execution_id", execution_id, "node_id", node_id, "attempt", attempt, "plan", "p"]

    assert parse_entry("7-1", usual) == parse_entry("7-1", [*usual[2:], *usual[:2]])
