"""Trees of executions while everything dies: one child for each wait, and none behind a cancel."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from operator import methodcaller
from typing import Any

import pytest

from flowd.workflow.ids import child_id
from scripts.soaking.checker import find_violations
from tests.daemon import wait_until
from tests.process.failpoints import ACTIONS, CANCEL_POINTS, TREE_POINTS
from tests.process.faulty import FaultyFlowd
from tests.process.flowd_process import node
from tests.process.test_failpoints import armed_with

Run = Callable[..., FaultyFlowd]
FOLLOW_POINTS = {"settle": TREE_POINTS["settle"]}
MAKE_POINTS = {name: point for name, point in TREE_POINTS.items() if name not in FOLLOW_POINTS}


def document(name: str, *nodes: dict[str, Any], **fields: Any) -> bytes:
    return json.dumps({"name": name, "dag": {"nodes": nodes}, **fields}).encode()


def save(flowd: FaultyFlowd, *leaf: dict[str, Any]) -> None:
    """`leaf` has these nodes, and `middle` a node that runs it."""
    flowd.insist(methodcaller("put_definition", "leaf", document("leaf", *leaf)))
    middle = document("middle", node("low", handler="workflow", name="leaf"))
    flowd.insist(methodcaller("put_definition", "middle", middle))


def start(flowd: FaultyFlowd, *nodes: dict[str, Any], **fields: Any) -> str:
    execution_id: str = flowd.api.submit_workflow(document("tree", *nodes, **fields))
    flowd.api.trigger_workflow(execution_id)
    return execution_id


@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_happens_where_children_are_made_each_wait_has_one(
    run_faulty: Run, action: str
) -> None:
    names = {**MAKE_POINTS, "read": 0, "committed": 0}
    flowd = run_faulty("start", **armed_with(action, names))
    flowd.wait_until_running()
    save(flowd, node("A", handler="sleep", seconds=0.01), node("B", "A", of="{{ A.attempt }}"))
    fan = node("fan", handler="workflow", name="middle") | {
        "map": {"over": "{{ input.rows }}", "concurrency": 2}
    }
    execution_ids = []
    for _ in flowd.until_failed(MAKE_POINTS, most=10):
        rows = {"rows": [0, 1, 2, 3]}
        execution_ids.append(execution_id := start(flowd, fan, node("last", "fan"), input=rows))
        assert flowd.wait_for_execution(execution_id) == "COMPLETED"
        assert flowd.results(execution_id)["fan"]["count"] == 4
    assert find_violations(flowd.redis, execution_ids) == []
    listed = [
        place for one in execution_ids for place in flowd.redis.hvals(f"workflow:{one}:children")
    ]
    assert Counter(listed) == {f"fan.{n} 1": len(execution_ids) for n in range(4)}
    # Each execution of a tree is the root, or listed: there are no others.
    assert flowd.redis.zcard("flowd:executions") == len(execution_ids) * 9
    starts = Counter((one["execution"], one["node"], one["attempt"]) for one in flowd.calls())
    assert set(starts.values()) == {1}, "an attempt started twice"
    assert flowd.redis.xlen("workflow:tasks") == 0
    flowd.check_and_stop()


@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_happens_on_the_way_of_a_cancel_nothing_of_the_tree_runs_behind_it(
    run_faulty: Run, action: str
) -> None:
    points = {**CANCEL_POINTS, **FOLLOW_POINTS}
    flowd = run_faulty("start", **armed_with(action, points))
    flowd.wait_until_running()
    save(flowd, node("A", handler="sleep", seconds=60), node("B", "A"))
    execution_ids = []
    for _ in flowd.until_failed(points, most=10):
        execution_ids.append(
            execution_id := start(flowd, node("call", handler="workflow", name="middle"))
        )
        middle = child_id(execution_id, "call", 1)
        leaf = child_id(middle, "low", 1)
        flowd.wait_for_calls(len(execution_ids), "A")

        flowd.insist(methodcaller("cancel", execution_id))

        # An answer says that it is done, whoever has died meanwhile.
        tree = (execution_id, middle, leaf)
        statuses = [flowd.redis.get(f"workflow:{one}:status") for one in tree]
        assert statuses == ["CANCELLED"] * 3
        wait_until(
            lambda: flowd.redis.get(f"workflow:{leaf}:node:A") == "CANCELLED",  # noqa: B023
            "the node that ran to be marked",
        )
        assert "B" not in {one["node"] for one in flowd.calls()}
    wait_until(lambda: flowd.redis.zcard("flowd:continuations") == 0, "all to be carried on")
    wait_until(lambda: flowd.redis.xlen("workflow:tasks") == 0, "the workers to hear of it")
    assert find_violations(flowd.redis, execution_ids) == []
    flowd.check_and_stop()


@pytest.mark.parametrize("victim", ["worker-1", "scheduler", "api-1", "redis"])
def test_whoever_is_killed_while_a_tree_waits_it_ends_well(run_faulty: Run, victim: str) -> None:
    flowd = run_faulty("start")
    flowd.wait_until_running()
    save(flowd, node("A", handler="held"))
    execution_id = start(flowd, *(node(f"c{n}", handler="workflow", name="middle") for n in "123"))
    flowd.wait_for_calls(3, "A")
    flowd.kill(victim)
    flowd.open()
    # While the server is away nobody answers.
    wait_until(
        lambda: flowd.insist(methodcaller("status", execution_id)) == "COMPLETED", "the root to end"
    )
    assert find_violations(flowd.redis, [execution_id]) == []
    flowd.check_and_stop()
