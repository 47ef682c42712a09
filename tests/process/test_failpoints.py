"""Every named point crossed with a kill, a lost reply, a hang and a delay: nothing is lost.

Row P2 of tests/README.md, and what goes beyond it: the same for the scheduler and the supervisor.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
from collections.abc import Callable
from importlib import import_module
from typing import Any

import pytest

from tests.daemon import wait_until
from tests.process.failpoints import (
    ACTIONS,
    API_POINTS,
    CANCEL_POINTS,
    LIMIT_POINTS,
    LOSING,
    MAP_POINTS,
    POINTS,
    RECOVERY_POINTS,
    SCHEDULE_POINTS,
    SCHEDULER_POINTS,
    SUPERVISOR_POINTS,
    TREE_POINTS,
    WORKER_POINTS,
)
from tests.process.faulty import FaultyFlowd
from tests.process.flowd_process import node

Run = Callable[..., FaultyFlowd]

CHILD_POINTS = {**WORKER_POINTS, **SCHEDULER_POINTS}
CROSSINGS = {
    "kill": tuple(CHILD_POINTS),
    "lose": tuple(name for name in LOSING if name in CHILD_POINTS),
    "hang": tuple(CHILD_POINTS),
    "delay": tuple(CHILD_POINTS),
}
# What a node may be tried beyond its two attempts: each point takes its worker away once.
STARTS_MAX = 2 + len(CHILD_POINTS)


def armed(action: str, names: Any) -> str:
    return ",".join(f"{name}:{action}" for name in names)


def armed_with(action: str, names: Any) -> dict[str, str]:
    """The environment of a flowd that meets this at each of these points. Only where one hangs is
    anybody taken for hung soon: who waits for a core may be late, and would be killed once more."""
    hung_after_s = "0.8" if action == "hang" else "30"
    return {
        "FLOWD_TEST_FAILPOINTS": armed(action, names),
        "FLOWD_SUPERVISOR__HUNG_AFTER_S": hung_after_s,
    }


def work() -> list[dict[str, Any]]:
    """Thirty nodes, one of which has to be tried again, one that waits in vain, one that waits, one
    that is called until it is done, and a last one."""
    nodes = [node(f"N{number}", handler="sleep", seconds=0.02) for number in range(29)]
    retry = {"max_attempts": 50, "delay_s": 0.05, "backoff": 1}
    flaky = {**node("flaky", handler="fail_once"), "retry": retry}
    asked = {**node("asked", handler="signal", on_timeout="complete"), "timeout_s": 0.05}
    pause = node("pause", handler="delay", seconds=0.05)
    done = {"until": "output.attempt >= 2", "delay_s": 0.05}
    again = {**node("again", "pause", handler="sleep", seconds=0.01), "repeat": done}
    last = node("last", "flaky", "asked", "again", *(each["id"] for each in nodes))
    return [*nodes, flaky, asked, pause, again, last]


def check_outcome(flowd: FaultyFlowd, execution_id: str) -> None:
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    results = flowd.results(execution_id)
    attempts = flowd.redis.hgetall(f"workflow:{execution_id}:attempts")
    assert results.keys() == attempts.keys()
    for node_id, output in results.items():
        committed = int(attempts[node_id].split()[0])
        assert committed <= STARTS_MAX
        if node_id.startswith("N"):
            # The output that stands is that of the attempt that was committed.
            assert output == {"attempt": committed}
    starts = [(call["node"], call["attempt"]) for call in flowd.calls()]
    assert len(starts) == len(set(starts)), "an attempt started twice"


@pytest.mark.parametrize("name", POINTS)
def test_a_point_is_at_a_method_there_is(name: str) -> None:
    module, _, owner = POINTS[name].owner.partition(":")
    assert callable(getattr(getattr(import_module(module), owner), POINTS[name].method))


@pytest.mark.parametrize("action", ACTIONS)
def test_p02_whatever_happens_at_any_point_nothing_is_lost(
    run_faulty: Run, figure: Callable[[str], None], action: str
) -> None:
    names = CROSSINGS[action]
    flowd = run_faulty(
        "start",
        FLOWD_TEST_FAILPOINTS_BY_TURNS="1",
        **armed_with(action, names),
    )
    wait_until(lambda: flowd.status() is not None, "the supervisor to answer")
    flowd.wait_until_running()

    def have_gone_off() -> bool:
        return all((flowd.folder / f"failed-{name}").exists() for name in names)

    execution_ids = []
    while not have_gone_off():
        assert len(execution_ids) < 40, sorted(path.name for path in flowd.folder.glob("failed-*"))
        for turn in range(2):
            flowd.folder.joinpath(f"turn-{turn}").touch()
        execution_ids.append(flowd.submit_and_trigger(*work()))
        check_outcome(flowd, execution_ids[-1])
        flowd.folder.joinpath("calls").unlink()
    flowd.wait_until_running()
    execution_ids.append(flowd.submit_and_trigger(*work()))
    check_outcome(flowd, execution_ids[-1])
    assert flowd.redis.xlen("workflow:tasks") == 0
    assert flowd.redis.zcard("flowd:retries") == 0
    figure(f"{len(names)} of {len(names)} points went off, in {len(execution_ids)} executions")
    flowd.check_and_stop()


@pytest.mark.parametrize("action", ACTIONS)
def test_p02_a_recovery_that_breaks_off_at_any_point_is_carried_on(
    run_faulty: Run, action: str
) -> None:
    flowd = run_faulty(
        "start",
        **armed_with(action, RECOVERY_POINTS),
    )
    flowd.wait_until_running()

    def have_gone_off() -> bool:
        return all((flowd.folder / f"failed-{name}").exists() for name in RECOVERY_POINTS)

    kills = 0
    while not have_gone_off():
        assert kills < 10, sorted(path.name for path in flowd.folder.glob("failed-*"))
        execution_id = flowd.submit_and_trigger(*work())
        (call,) = flowd.wait_for_calls(1)[-1:]
        with contextlib.suppress(ProcessLookupError):
            os.kill(call["pid"], signal.SIGKILL)
        kills += 1
        check_outcome(flowd, execution_id)
        flowd.folder.joinpath("calls").unlink()
    flowd.check_and_stop()


MAPPED = {
    "name": "mapped",
    "input": {"rows": list(range(12))},
    "dag": {
        "nodes": [
            {
                **node("fan", handler="sleep", seconds=0.01, of="{{ item }}"),
                "map": {"over": "{{ input.rows }}", "concurrency": 3},
            },
            node("last", "fan", all="{{ fan.results }}"),
        ]
    },
}


@pytest.mark.parametrize("action", ACTIONS)
def test_p02_a_map_that_breaks_off_at_any_point_has_each_result_once(
    run_faulty: Run, action: str
) -> None:
    names = {**MAP_POINTS, "read": 0, "committed": 0}
    flowd = run_faulty("start", **armed_with(action, names))
    flowd.wait_until_running()

    def have_gone_off() -> bool:
        return all((flowd.folder / f"failed-{name}").exists() for name in MAP_POINTS)

    runs = 0
    while not have_gone_off():
        assert runs < 10, sorted(path.name for path in flowd.folder.glob("failed-*"))
        runs += 1
        execution_id = flowd.api.submit_workflow(json.dumps(MAPPED).encode())
        flowd.api.trigger_workflow(execution_id)
        assert flowd.wait_for_execution(execution_id) == "COMPLETED"
        attempts = flowd.redis.hgetall(f"workflow:{execution_id}:attempts")
        results = flowd.results(execution_id)["fan"]
        assert (results["count"], results["failed"]) == (12, [])
        # The result that stands is that of the attempt that was committed.
        assert [one["attempt"] for one in results["results"]] == [
            int(attempts[f"fan.{index}"].split()[0]) for index in range(12)
        ]
    calls = flowd.calls()
    starts = [(call["execution"], call["node"], call["attempt"]) for call in calls]
    assert len(starts) == len(set(starts)), "an attempt started twice"
    assert flowd.redis.xlen("workflow:tasks") == 0
    flowd.check_and_stop()


@pytest.mark.parametrize("name", SUPERVISOR_POINTS)
def test_p05_a_supervisor_killed_at_any_point_leaves_work_that_goes_on(
    run_faulty: Run, name: str
) -> None:
    flowd = run_faulty("start")
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(*work())
    check_outcome(flowd, execution_id)
    flowd.check_and_stop()
    flowd.folder.joinpath("calls").unlink()

    flowd = run_faulty("start", FLOWD_TEST_FAILPOINTS=f"{name}:kill")
    bring_to(flowd, name)
    check_that_it_ends_and_starts_again(flowd, run_faulty)


@pytest.mark.parametrize("name", SUPERVISOR_POINTS)
def test_p07_a_supervisor_that_hangs_at_any_point_is_killed_and_started_again(
    run_faulty: Run, name: str
) -> None:
    flowd = run_faulty("start", FLOWD_TEST_FAILPOINTS=f"{name}:hang")
    bring_to(flowd, name)
    wait_until((flowd.folder / f"failed-{name}").exists, "the supervisor to hang")

    # What systemd does when it is fed no more.
    flowd.signal(signal.SIGKILL)

    check_that_it_ends_and_starts_again(flowd, run_faulty)


def test_p07_a_supervisor_that_is_late_at_every_point_loses_nothing(run_faulty: Run) -> None:
    flowd = run_faulty("start", FLOWD_TEST_FAILPOINTS=armed("delay", SUPERVISOR_POINTS))
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(*work())
    flowd.kill("worker-1")
    check_outcome(flowd, execution_id)
    flowd.wait_until_running()
    flowd.check_and_stop()
    assert {path.name for path in flowd.folder.glob("failed-*")} == {
        f"failed-{name}" for name in SUPERVISOR_POINTS
    }


def bring_to(flowd: FaultyFlowd, name: str) -> None:
    """Have the supervisor come to one of its points, where it may end."""
    has_come = (flowd.folder / f"failed-{name}").exists
    # At its first fork, say, it has not said anything yet.
    wait_until(lambda: has_come() or is_started(flowd), "a worker, or the point")
    if not has_come() and (status := flowd.status()):
        for one in status["processes"]:
            if one["name"] == "worker-1" and one["pid"]:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(one["pid"], signal.SIGKILL)
    if name == "stop":
        flowd.signal(signal.SIGTERM)


def check_that_it_ends_and_starts_again(flowd: FaultyFlowd, run_faulty: Run) -> None:
    assert flowd.wait_for_end() == -signal.SIGKILL
    wait_until(lambda: flowd.survivors() == [], "every descendant to be gone")

    flowd = run_faulty("start")
    flowd.wait_until_running()
    check_outcome(flowd, flowd.submit_and_trigger(*work()))
    flowd.check_and_stop()


def is_started(flowd: FaultyFlowd) -> bool:
    if flowd.process.poll() is not None:
        return True
    status = flowd.status()
    posts = status["processes"] if status else []
    return any(one["name"] == "worker-1" and one["state"] == "RUNNING" for one in posts)


def test_every_point_is_crossed_with_every_action_it_can_have() -> None:
    crossed = {(name, action) for action, names in CROSSINGS.items() for name in names}
    # The supervisor does not speak to Redis: no reply of its can be lost.
    crossed |= {
        (name, action) for name in SUPERVISOR_POINTS for action in ("kill", "hang", "delay")
    }
    # Those of the API are crossed in test_signal_faults and test_cancel_faults, those of trees in
    # test_child_faults, those of schedules in test_schedule_faults, those of limits in
    # test_limit_faults.
    others = (*RECOVERY_POINTS, *API_POINTS, *MAP_POINTS, *CANCEL_POINTS, *TREE_POINTS)
    others += (*SCHEDULE_POINTS, *LIMIT_POINTS)
    crossed |= {(name, action) for name in others for action in ACTIONS}
    assert {name for name, _ in crossed} == set(POINTS)
    for name in POINTS:
        actions = {action for crossed_name, action in crossed if crossed_name == name}
        assert actions >= set(ACTIONS) - {"lose"}
