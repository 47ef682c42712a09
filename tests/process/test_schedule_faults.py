"""Schedules while schedulers are killed, frozen and begun anew: each time once, or counted."""

from __future__ import annotations

import json
import signal
import urllib.request
from collections.abc import Callable
from typing import Any

import pytest

from flowd.store.redis import keys
from flowd.workflow.ids import scheduled_id
from tests.daemon import wait_until
from tests.process.flowd_process import Flowd, node

Run = Callable[..., Flowd]
NAME = "each-second"
SECOND_MS = 1000
WORKFLOW = {"name": "Report", "dag": {"nodes": [node("A")]}}


def send(flowd: Flowd, method: str, path: str, **body: Any) -> None:
    request = urllib.request.Request(f"{flowd.url}{path}", json.dumps(body).encode(), method=method)
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status in (200, 201)


def begin(run_flowd: Run, **said: Any) -> Flowd:
    flowd = run_flowd("start")
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
