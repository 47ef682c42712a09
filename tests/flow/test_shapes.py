"""Workflows of every shape run to their end, each node once and after its dependencies."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from itertools import pairwise

import pytest

from flowd.store.redis import scripts
from tests.flow.engine import Engine, calls, node, workflow

CHAIN_LENGTH = 1_000
FAN_WIDTH = 1_000
SCRIPT_MS_MAX = 50


def chain(length: int):
    return workflow(*(node(f"n{at}", [f"n{at - 1}"] if at else []) for at in range(length)))


def fan(width: int):
    middle = [f"m{at}" for at in range(width)]
    return workflow(node("first"), *(node(one, ["first"]) for one in middle), node("last", middle))


async def test_a_chain_runs_in_order(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(chain(20))
        assert calls(execution_id) == [f"n{at}" for at in range(20)]
        assert set((await engine.states(execution_id)).values()) == {"COMPLETED"}


async def test_a_diamond_joins_once_both_sides_are_done(settings):
    async with Engine(settings) as engine:
        diamond = workflow(node("A"), node("B", ["A"]), node("C", ["A"]), node("D", ["B", "C"]))
        execution_id = await engine.run(diamond)
        order = calls(execution_id)
        assert sorted(order) == ["A", "B", "C", "D"]
        assert order[0] == "A"
        assert order[-1] == "D"


@pytest.mark.parametrize("handler", ["echo", "echo_async", "echo_in_thread"])
async def test_each_kind_of_handler_runs(settings, handler):
    async with Engine(settings) as engine:
        execution_id = await engine.run(workflow(node("A", handler=handler, said="yes")))
        results = await engine.results(execution_id)
        assert results["A"]["said"] == "yes"
        assert ("thread" in results["A"]) == (handler == "echo_in_thread")


async def test_a_chain_of_1000_nodes_runs_each_node_once(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(chain(CHAIN_LENGTH))
        assert calls(execution_id) == [f"n{at}" for at in range(CHAIN_LENGTH)]
        assert str(await engine.end(execution_id)) == "COMPLETED"


async def test_a_fan_of_1000_nodes_runs_each_node_once(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(fan(FAN_WIDTH))
        order = calls(execution_id)
        assert len(order) == len(set(order)) == FAN_WIDTH + 2
        assert order[0] == "first"
        assert order[-1] == "last"
        assert str(await engine.end(execution_id)) == "COMPLETED"


async def test_more_roots_than_one_call_opens_all_run(settings):
    async with Engine(settings) as engine:
        roots = [f"r{at}" for at in range(1_201)]
        execution_id = await engine.run(
            workflow(*(node(one) for one in roots), node("last", roots))
        )
        order = calls(execution_id)
        assert sorted(order[:-1]) == sorted(roots)
        assert order[-1] == "last"
        assert await engine.redis("ZCARD", "flowd:continuations") == 0


async def test_many_executions_share_the_workers_and_leave_nothing_outstanding(settings):
    async with Engine(settings) as engine:
        diamond = workflow(node("A"), node("B", ["A"]), node("C", ["A"]), node("D", ["B", "C"]))
        started = [await engine.start(diamond) for _ in range(50)]
        for execution_id in started:
            assert str(await engine.end(execution_id)) == "COMPLETED"
            assert len(calls(execution_id)) == 4
        assert await engine.redis("XLEN", "workflow:tasks") == 0
        assert await engine.redis("SCARD", "workflows:active") == 0
        pending = await engine.redis("XPENDING", "workflow:tasks", "workflow_group")
        assert pending[0] == 0


def _layers(width, depth):
    """Each node waits for two of the layer above."""
    rows = [[f"n{level}_{number}" for number in range(width)] for level in range(depth)]
    nodes = [node(one) for one in rows[0]]
    for above, row in pairwise(rows):
        nodes += [node(one, [above[at], above[at - 1]]) for at, one in enumerate(row)]
    return nodes


@pytest.mark.parametrize(
    "nodes",
    [
        [node(f"n{number}", [f"n{number - 1}"] if number else []) for number in range(10_000)],
        [node("first"), *(node(f"n{number}", ["first"]) for number in range(9_999))],
        _layers(100, 100),
    ],
    ids=["chain", "star", "layers"],
)
async def test_i03_ten_thousand_nodes_run_each_once_and_no_script_holds_the_server(
    settings, redis, figure, nodes
):
    redis.config_set("slowlog-log-slower-than", 1_000)
    redis.config_set("slowlog-max-len", 10_000)
    # The server is another test's as well: what was slow there is no finding here.
    redis.slowlog_reset()
    with yardstick_beside(redis):
        async with Engine(settings) as engine:
            execution_id = await engine.start(workflow(*nodes))
            assert str(await engine.end(execution_id)) == "COMPLETED"
            assert sorted(calls(execution_id)) == sorted(one["id"] for one in nodes)
    longest_ms, stretch = longest(redis), most_stretched(redis)
    assert {name: ms for name, ms in longest_ms.items() if ms > SCRIPT_MS_MAX * stretch} == {}
    shown = ", ".join(f"{name} {ms:.1f} ms" for name, ms in sorted(longest_ms.items()))
    figure(f"{shown}; a script of always the same work took up to {stretch:.1f} times its time")


@contextmanager
def yardstick_beside(redis):
    """A script of always the same work is run now and then: the server seems slow, too, while
    others have the processor."""
    is_over = threading.Event()

    def measure():
        while not is_over.wait(0.1):
            redis.eval("local sum = 0 for at = 1, 1500000 do sum = sum + at end return sum", 0)

    measuring = threading.Thread(target=measure)
    measuring.start()
    try:
        yield
    finally:
        is_over.set()
        measuring.join()


def most_stretched(redis) -> float:
    """How many times longer than at best the yardstick took at worst."""
    entries = redis.slowlog_get(10_000)
    times = [one["duration"] for one in entries if one["command"].startswith(b"EVAL ")]
    return max(times, default=1) / min(times, default=1)


def longest(redis) -> dict[str, float]:
    """The longest call of each script that took more than a millisecond."""
    names = {script.sha: script.name for script in scripts.ALL}
    found: dict[str, float] = {}
    for entry in redis.slowlog_get(10_000):
        words = entry["command"].split()
        if words[0].upper() == b"EVALSHA":
            name = names[words[1].decode()]
            found[name] = max(found.get(name, 0), entry["duration"] / 1000)
    return found
