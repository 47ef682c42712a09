"""A cancel while everything dies: what cleans up runs last, once the others have stopped."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from operator import methodcaller

import pytest

from flowd.client import ApiError, Client, ConnectionFailed
from scripts.soaking.checker import find_violations
from tests.daemon import wait_until
from tests.process.failpoints import ACTIONS, CANCEL_POINTS
from tests.process.faulty import FaultyFlowd
from tests.process.flowd_process import node
from tests.process.test_failpoints import armed_with

Run = Callable[..., FaultyFlowd]
AFTERWARDS = {
    "A": "CANCELLED",
    "B": "CANCELLED",
    "C": "CANCELLED",
    "tidy": "COMPLETED",
    "tell": "COMPLETED",
}


def start(flowd: FaultyFlowd) -> str:
    """An execution two nodes of which run for a minute."""
    nodes = [node(one, handler="sleep", seconds=60) for one in "AB"]
    last = [node("tidy"), node("tell", "tidy", how="{{ execution.status }}")]
    dag = {"nodes": [*nodes, node("C", "A")], "finally": last}
    execution_id = flowd.api.submit_workflow(json.dumps({"name": "test", "dag": dag}).encode())
    flowd.api.trigger_workflow(execution_id)

    def run() -> bool:
        states = flowd.node_states(execution_id)
        return (states["A"], states["B"]) == ("RUNNING", "RUNNING")

    wait_until(run, "both to run")
    return execution_id


def wait_for_the_end(flowd: FaultyFlowd, execution_id: str) -> None:
    def has_ended() -> bool:
        # While the server is away nobody answers.
        with contextlib.suppress(ConnectionFailed, ApiError), Client(flowd.url) as client:
            return client.status(execution_id) == "CANCELLED"
        return False

    wait_until(has_ended, f"{execution_id} to end")
    assert flowd.node_states(execution_id) == AFTERWARDS


@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_happens_on_the_way_of_a_cancel_finally_runs(run_faulty: Run, action: str) -> None:
    flowd = run_faulty("start", **armed_with(action, CANCEL_POINTS))
    flowd.wait_until_running()
    execution_ids = []
    for _ in flowd.until_failed(CANCEL_POINTS, most=10):
        execution_ids.append(execution_id := start(flowd))
        flowd.insist(methodcaller("cancel", execution_id))
        wait_for_the_end(flowd, execution_id)
    assert find_violations(flowd.redis, execution_ids) == []
    flowd.check_and_stop()


@pytest.mark.parametrize("victim", ["worker-1", "scheduler", "api-1", "redis"])
def test_whoever_is_killed_right_after_a_cancel_finally_runs(run_faulty: Run, victim: str) -> None:
    flowd = run_faulty("start")
    flowd.wait_until_running()
    execution_id = start(flowd)
    flowd.insist(methodcaller("cancel", execution_id))
    flowd.kill(victim)
    wait_for_the_end(flowd, execution_id)
    assert find_violations(flowd.redis, [execution_id]) == []
    flowd.check_and_stop()
