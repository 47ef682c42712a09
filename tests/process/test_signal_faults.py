"""What is answered while everything dies: each gate is decided once, and nobody waits in vain."""

from __future__ import annotations

import signal
from collections.abc import Callable
from operator import methodcaller
from pathlib import Path
from typing import Any

import pytest

from scripts.soaking.checker import find_violations
from tests.daemon import wait_until
from tests.process.failpoints import ACTIONS, API_POINTS
from tests.process.faulty import FaultyFlowd
from tests.process.flowd_process import node
from tests.process.means import Clock
from tests.process.test_failpoints import armed_with

Run = Callable[..., FaultyFlowd]
GATES = ("one", "two", "three")


def gate(node_id: str, *above: str, timeout_s: float | None = None, **config: Any) -> Any:
    written = node(node_id, *above, handler="signal", **config)
    return written if timeout_s is None else {**written, "timeout_s": timeout_s}


def wait_for_gate(flowd: FaultyFlowd, execution_id: str, node_id: str) -> None:
    def waits() -> bool:
        return flowd.node_states(execution_id)[node_id] == "WAITING"

    wait_until(waits, f"{node_id} to wait")


def insist(flowd: FaultyFlowd, execution_id: str, node_id: str, data: Any, key: str) -> Any:
    """The decision."""
    return flowd.insist(methodcaller("signal", execution_id, node_id, data, idempotency_key=key))


@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_happens_to_the_api_an_answer_decides_once(run_faulty: Run, action: str) -> None:
    flowd = run_faulty("start", **armed_with(action, API_POINTS))
    flowd.wait_until_running()
    execution_ids = []
    for _ in flowd.until_failed(API_POINTS, most=20):
        gates = [gate(one) for one in GATES]
        execution_ids.append(flowd.submit_and_trigger(*gates, node("last", *GATES)))
        for number, one in enumerate(GATES):
            decision = insist(flowd, execution_ids[-1], one, number, f"{action} {one}")
            assert decision["data"] == number
        assert flowd.wait_for_execution(execution_ids[-1]) == "COMPLETED"
        results = flowd.results(execution_ids[-1])
        assert [results[one]["data"] for one in GATES] == [0, 1, 2]
    assert find_violations(flowd.redis, execution_ids) == []
    flowd.check_and_stop()


@pytest.mark.parametrize("victim", ["worker-1", "scheduler", "api-1", "redis"])
def test_whoever_is_killed_amid_the_wait_the_answer_and_the_time_out_come(
    run_faulty: Run, victim: str
) -> None:
    flowd = run_faulty("start")
    flowd.wait_until_running()
    asked = flowd.submit_and_trigger(gate("ok"), node("B", "ok"))
    due = flowd.submit_and_trigger(gate("ok", timeout_s=3, on_timeout="complete", default=7))
    for one in (asked, due):
        wait_for_gate(flowd, one, "ok")
    names = {one["name"] for one in flowd.wait_until_running()["processes"]}
    assert victim in names, names

    flowd.kill(victim)

    assert insist(flowd, asked, "ok", "yes", "k")["data"] == "yes"
    assert flowd.wait_for_execution(asked) == "COMPLETED"
    assert flowd.wait_for_execution(due) == "COMPLETED"
    output = flowd.results(due)["ok"]
    assert (output["data"], output["timed_out"]) == (7, True)
    assert find_violations(flowd.redis, [asked, due]) == []
    flowd.check_and_stop()


def test_a_whole_stop_amid_the_wait_loses_neither_the_question_nor_an_early_answer(
    run_faulty: Run,
) -> None:
    flowd = run_faulty("start")
    flowd.wait_until_running()
    asked = flowd.submit_and_trigger(gate("one"), gate("two", "one"))
    wait_for_gate(flowd, asked, "one")
    insist(flowd, asked, "two", "early", "k")
    flowd.signal(signal.SIGKILL)
    flowd.wait_for_end()
    wait_until(lambda: flowd.survivors() == [], "every descendant to be gone")

    again = run_faulty("start")
    again.wait_until_running()
    assert again.node_states(asked) == {"one": "WAITING", "two": "PENDING"}
    insist(again, asked, "one", "late", "l")
    assert again.wait_for_execution(asked) == "COMPLETED"
    assert [again.results(asked)[one]["data"] for one in ("one", "two")] == ["late", "early"]
    again.check_and_stop()


@pytest.mark.parametrize("hours", [-1, 1])
def test_a_clock_that_jumps_amid_the_wait_prolongs_no_time_out(
    run_faulty: Run, tmp_path: Path, hours: int
) -> None:
    clock = Clock(tmp_path)
    flowd = run_faulty("start", **clock.environ)
    flowd.wait_until_running()
    asked = flowd.submit_and_trigger(gate("ok"), node("B", "ok"))
    due = flowd.submit_and_trigger(gate("ok", timeout_s=2, on_timeout="complete"))
    for one in (asked, due):
        wait_for_gate(flowd, one, "ok")

    clock.jump_to(hours)

    assert flowd.wait_for_execution(due) == "COMPLETED"
    assert flowd.results(due)["ok"]["timed_out"] is True
    # Without a time-out it waits on, whatever the clock says.
    assert flowd.node_states(asked)["ok"] == "WAITING"
    insist(flowd, asked, "ok", None, "k")
    assert flowd.wait_for_execution(asked) == "COMPLETED"
    assert find_violations(flowd.redis, [asked, due]) == []
    flowd.check_and_stop()
