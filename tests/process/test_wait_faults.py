"""What waits while everything dies or the clock jumps: it is woken once, and in its time."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from scripts.soaking.checker import find_violations
from tests.api_client import ApiError
from tests.daemon import wait_until
from tests.process.faulty import FaultyFlowd
from tests.process.flowd_process import node
from tests.process.means import Clock

Run = Callable[..., FaultyFlowd]
PAUSE_S = 3.0


def waiting() -> list[dict[str, Any]]:
    """A delay, and a node that is called again after a pause."""
    again = {"until": "output.attempt >= 2", "delay_s": PAUSE_S}
    return [
        node("pause", handler="delay", seconds=PAUSE_S),
        {**node("again", handler="sleep", seconds=0.01), "repeat": again},
    ]


def until_they_wait(flowd: FaultyFlowd, execution_id: str) -> None:
    def wait() -> bool:
        return set(flowd.node_states(execution_id).values()) == {"WAITING"}

    wait_until(wait, "all to wait")


def assert_called_twice(flowd: FaultyFlowd) -> None:
    """Once before the pause and once behind it, and never once more."""
    assert [(one["node"], one["attempt"]) for one in flowd.calls()] == [("again", 1), ("again", 2)]


@pytest.mark.parametrize("victim", ["worker-1", "scheduler", "redis"])
def test_whoever_is_killed_amid_a_wait_it_ends_once_and_in_its_time(
    run_faulty: Run, victim: str
) -> None:
    flowd = run_faulty("start")
    flowd.wait_until_running()
    began_s = time.monotonic()
    execution_id = flowd.submit_and_trigger(*waiting())
    until_they_wait(flowd, execution_id)

    flowd.kill(victim)

    def is_completed() -> bool:
        # While the server is away the API says so.
        with contextlib.suppress(ApiError):
            return flowd.wait_for_execution(execution_id) == "COMPLETED"
        return False

    wait_until(is_completed, "its end")
    assert time.monotonic() - began_s >= PAUSE_S
    assert_called_twice(flowd)
    assert find_violations(flowd.redis, [execution_id]) == []
    flowd.check_and_stop()


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_jumps_amid_a_map_and_its_finally_holds_up_neither(
    run_faulty: Run, tmp_path: Path, hours: int
) -> None:
    """Both jumps come while every item is in a pause, the second one back, amid `finally`."""
    clock = Clock(tmp_path)
    flowd = run_faulty("start", **clock.environ)
    flowd.wait_until_running()
    _, again = waiting()
    mapped = {**again, "map": {"over": "{{ input.rows }}", "concurrency": 2}}
    nodes, last = [{**mapped, "id": "fan"}], [{**mapped, "id": "tidy"}, waiting()[0]]
    document = {
        "name": "test",
        "dag": {"nodes": nodes, "finally": last},
        "input": {"rows": [1] * 4},
    }
    execution_id = flowd.api.submit_workflow(json.dumps(document).encode())
    flowd.api.trigger_workflow(execution_id)

    def wait_for_pauses(*node_ids: str) -> None:
        def pause() -> bool:
            states = flowd.node_states(execution_id)
            return all(states.get(one) == "WAITING" for one in node_ids)

        wait_until(pause, f"{node_ids} to wait")

    items = {name: [f"{name}.{index}" for index in range(4)] for name in ("fan", "tidy")}
    wait_for_pauses("fan", *items["fan"])
    clock.jump_to(hours)
    wait_for_pauses("tidy", "pause", *items["tidy"])
    assert flowd.node_states(execution_id)["fan"] == "COMPLETED"
    clock.jump_to(0)

    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    made = sorted((one["node"], one["attempt"]) for one in flowd.calls())
    assert made == sorted((one, call) for each in items.values() for one in each for call in (1, 2))
    assert find_violations(flowd.redis, [execution_id]) == []
    flowd.check_and_stop()


@pytest.mark.parametrize("hours", [1, -1])
def test_a_clock_that_jumps_amid_a_wait_prolongs_none_and_moves_no_moment(
    run_faulty: Run, tmp_path: Path, hours: int
) -> None:
    clock = Clock(tmp_path)
    flowd = run_faulty("start", **clock.environ)
    flowd.wait_until_running()
    moment = (datetime.now(UTC) + timedelta(minutes=30)).isoformat()
    until_then = flowd.submit_and_trigger(node("A", handler="delay", until=moment))
    pauses = flowd.submit_and_trigger(*waiting())
    for one in (until_then, pauses):
        until_they_wait(flowd, one)

    clock.jump_to(hours)

    assert flowd.wait_for_execution(pauses) == "COMPLETED"
    assert_called_twice(flowd)
    if hours > 0:
        assert flowd.wait_for_execution(until_then) == "COMPLETED"
        assert find_violations(flowd.redis, [until_then, pauses]) == []
    else:
        assert flowd.node_states(until_then) == {"A": "WAITING"}
    flowd.check_and_stop()
