"""Schedules while schedulers are killed, frozen and begun anew: each time once, or counted."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from flowd.store.redis import keys
from flowd.workflow.ids import scheduled_id
from scripts.soaking.checker import find_violations
from tests.daemon import PATIENCE_S, wait_until
from tests.private_server import PrivateServer
from tests.process.failpoints import ACTIONS, LOSING, SCHEDULE_POINTS
from tests.process.faulty import FaultyFlowd
from tests.process.flowd_process import Flowd, node
from tests.process.means import Clock
from tests.process.test_failpoints import armed_with

Run = Callable[..., Flowd]
NAME = "each-second"
SECOND_MS = 1000
WORKFLOW = {"name": "Report", "dag": {"nodes": [node("A")]}}


def send(flowd: Flowd, method: str, path: str, **body: Any) -> None:
    request = urllib.request.Request(f"{flowd.url}{path}", json.dumps(body).encode(), method=method)
    with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
        assert answer.status in (200, 201)


def begin(run_flowd: Run, environ: Mapping[str, str] = MappingProxyType({}), **said: Any) -> Flowd:
    flowd = run_flowd("start", **environ)
    flowd.wait_until_running()
    send(flowd, "PUT", "/definitions/report", **WORKFLOW)
    said = {"workflow": "report", "every_s": 1, "overlap": "allow", **said}
    send(flowd, "PUT", f"/schedules/{NAME}", **said)
    return flowd


def counts(flowd: Flowd) -> dict[str, int]:
    words = ("fired", "missed", "skipped")
    found = flowd.redis.hmget(keys.schedule(NAME), *words)
    return dict(zip(words, (int(one or 0) for one in found), strict=True))


def begun_ms(flowd: Flowd) -> int:
    """The time that everything which has become of its times goes back to."""
    names = ("next_ms", "fired", "missed", "skipped")
    next_ms, *passed = (int(one or 0) for one in flowd.redis.hmget(keys.schedule(NAME), *names))
    return next_ms - SECOND_MS * sum(passed)


def until_fired(flowd: Flowd, more: int) -> None:
    wanted = counts(flowd)["fired"] + more
    wait_until(lambda: counts(flowd)["fired"] >= wanted, f"{more} more times")


def check_runs(flowd: Flowd) -> None:
    """Each execution is of a time of its own, and was counted."""
    send(flowd, "POST", f"/schedules/{NAME}/pause")
    ids = flowd.redis.zrange(keys.EXECUTIONS, 0, -1)
    assert len(ids) == counts(flowd)["fired"]
    assert all(one == scheduled_id(NAME, int(one[:12], 16)) for one in ids)


def test_schedulers_killed_again_and_again_leave_no_time_out(run_flowd: Run) -> None:
    flowd = begin(run_flowd)
    until_fired(flowd, 1)
    first_ms = begun_ms(flowd)
    for _ in range(5):
        restarts = flowd.post("scheduler")["restarts"]
        flowd.kill("scheduler")
        flowd.wait_for_post(
            "scheduler", lambda one, n=restarts: one["state"] == "RUNNING" and one["restarts"] > n
        )
        until_fired(flowd, 1)

    assert begun_ms(flowd) == first_ms
    check_runs(flowd)


@pytest.mark.parametrize("catch_up", ["last", "all"])
def test_when_a_scheduler_hangs_the_next_makes_up_for_its_times(
    run_flowd: Run, catch_up: str
) -> None:
    flowd = begin(run_flowd, catch_up=catch_up)
    until_fired(flowd, 1)
    first_ms, before = begun_ms(flowd), counts(flowd)
    pid = flowd.kill("scheduler", signal.SIGSTOP)
    wait_until(lambda: flowd.post("scheduler")["pid"] != pid, "another scheduler")
    until_fired(flowd, 3)

    after = counts(flowd)
    assert begun_ms(flowd) == first_ms
    if catch_up == "all":
        assert after["missed"] == before["missed"]
    check_runs(flowd)


@pytest.mark.parametrize("action", ACTIONS)
def test_whatever_happens_to_a_scheduler_amid_a_time_it_has_one_fate(
    run_faulty: Callable[..., FaultyFlowd], action: str
) -> None:
    points = [one for one in SCHEDULE_POINTS if action != "lose" or one in LOSING]
    flowd = begin(run_faulty, armed_with(action, points))
    first_ms = begun_ms(flowd)
    for _ in flowd.until_failed(points, most=40):
        until_fired(flowd, 1)
    until_fired(flowd, 1)

    assert begun_ms(flowd) == first_ms
    check_runs(flowd)
    ids = flowd.redis.zrange(keys.EXECUTIONS, 0, -1)
    assert {flowd.wait_for_execution(one) for one in ids} == {"COMPLETED"}
    assert find_violations(flowd.redis, ids) == []


def test_a_clock_that_jumps_runs_no_time_twice_and_counts_what_it_jumps_over(
    run_flowd: Run, tmp_path: Path
) -> None:
    clock = Clock(tmp_path)
    flowd = begin(run_flowd, clock.environ)
    until_fired(flowd, 2)
    first_ms = begun_ms(flowd)

    clock.jump_to(1)
    wait_until(lambda: counts(flowd)["missed"] >= 3_000, "what is missed to be counted")
    until_fired(flowd, 2)
    assert begun_ms(flowd) == first_ms

    before = counts(flowd)
    clock.jump_to(0)
    # A node is run meanwhile: whatever waits for the schedule does not wait for the clock.
    flowd.wait_for_execution(flowd.submit_and_trigger(node("A")))
    assert counts(flowd)["missed"] == before["missed"]
    assert counts(flowd)["fired"] <= before["fired"] + 1
    clock.jump_to(1)
    until_fired(flowd, 1)
    assert begun_ms(flowd) == first_ms


@pytest.mark.thorough
def test_ten_starts_and_stops_leave_no_time_out(run_flowd: Run) -> None:
    flowd = begin(run_flowd)
    until_fired(flowd, 1)
    first_ms = begun_ms(flowd)
    for _ in range(10):
        flowd.signal(signal.SIGTERM)
        assert flowd.wait_for_end() == 0
        flowd = run_flowd("start")
        flowd.wait_until_running()
        until_fired(flowd, 1)

    assert begun_ms(flowd) == first_ms
    check_runs(flowd)


@pytest.fixture
def redis_of_two(tmp_path: Path) -> Iterator[None]:
    """A Redis that a supervisor and a scheduler beside it share."""
    server = PrivateServer()
    server.start()
    (tmp_path / "flowd.toml").write_text(
        f"[api]\nport = 0\n[redis]\nurl = 'unix://{server.socket_path}'\ndata_dir = 'data'\n"
    )
    yield
    server.stop()


@pytest.mark.thorough
@pytest.mark.usefixtures("redis_of_two")
def test_of_two_schedulers_one_is_frozen_for_a_minute(run_flowd: Run) -> None:
    flowd = begin(run_flowd)
    other = run_flowd("scheduler")
    until_fired(flowd, 3)
    first_ms, before = begun_ms(flowd), counts(flowd)["fired"]
    other.signal(signal.SIGSTOP)
    while counts(flowd)["fired"] < before + 60:
        until_fired(flowd, 5)
    other.signal(signal.SIGCONT)
    until_fired(flowd, 5)

    assert begun_ms(flowd) == first_ms
    check_runs(flowd)
    assert other.process.poll() is None
