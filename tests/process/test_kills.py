"""kill -9, signals and lost processes under a running `flowd start`."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import psutil
import pytest

from tests.api_client import ApiError
from tests.daemon import PATIENCE_S, wait_until
from tests.local_services import Reply, Request, Service, json_reply, running_service
from tests.process.flowd_process import Flowd, node

Run = Callable[..., Flowd]
Figure = Callable[[str], None]


class Gate:
    """A service that answers nobody before it is opened, and knows who called when."""

    def __init__(self, service: Service, opened: threading.Event, calls: list[float]) -> None:
        self.url = service.url
        self.calls = calls
        self._opened = opened

    def open(self) -> None:
        self._opened.set()

    def wait_for_calls(self, count: int) -> None:
        wait_until(lambda: len(self.calls) >= count, f"{count} calls")


@pytest.fixture
def gate() -> Iterator[Gate]:
    opened = threading.Event()
    calls: list[float] = []

    def answer(_request: Request) -> Reply:
        calls.append(time.monotonic())
        opened.wait(10 * PATIENCE_S)
        return json_reply({"ok": True})

    with running_service(answer) as service:
        # Killed workers do not wait for their answers.
        service.handle_error = lambda *_: None
        yield Gate(service, opened, calls)
        opened.set()


def call(gate: Gate, node_id: str, *dependencies: str) -> dict[str, Any]:
    return node(node_id, *dependencies, handler="call_external_service", url=gate.url)


def fan(gate: Gate, width: int) -> list[dict[str, Any]]:
    leaves = [call(gate, f"B{number}", "A") for number in range(width)]
    return [node("A"), *leaves, node("C", *(leaf["id"] for leaf in leaves))]


def worker_with_connection(flowd: Flowd, url: str) -> str:
    """The name of the worker whose handler waits for this service."""
    port = int(url.rpartition(":")[2])
    for one in flowd.wait_until_running()["processes"]:
        if one["role"] == "worker":
            connections = psutil.Process(one["pid"]).net_connections(kind="tcp")
            if any(each.raddr and each.raddr.port == port for each in connections):
                return str(one["name"])
    raise AssertionError("no worker is calling the service")


def test_p01_a_worker_killed_in_a_node_costs_less_than_a_lease(
    run_flowd: Run, gate: Gate, figure: Figure
) -> None:
    # Its scheduler looks for what is gone too, once in ten minutes here: the supervisor tells.
    flowd = run_flowd("start", FLOWD_SCHEDULER__INTERVAL_S="600")
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(call(gate, "A"), node("B", "A"))
    gate.wait_for_calls(1)
    victim = worker_with_connection(flowd, gate.url)
    others = {one["name"]: one["pid"] for one in flowd.wait_until_running()["processes"]}

    killed_at = time.monotonic()
    flowd.kill(victim)
    gate.wait_for_calls(2)

    figure(f"called again {gate.calls[1] - killed_at:.2f} s after the kill")
    gate.open()
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    assert len(gate.calls) == 2
    after = {one["name"]: one["pid"] for one in flowd.wait_until_running()["processes"]}
    assert {name for name in others if others[name] != after[name]} == {victim}


def test_p02_all_workers_killed_at_once_lose_nothing(run_flowd: Run, gate: Gate) -> None:
    flowd = run_flowd("start", "--workers", "3")
    flowd.wait_until_running()
    execution_ids = [flowd.submit_and_trigger(call(gate, "A"), node("B", "A")) for _ in range(30)]
    gate.wait_for_calls(30)

    for pid in [flowd.post(f"worker-{number}")["pid"] for number in (1, 2, 3)]:
        os.kill(pid, signal.SIGKILL)
    gate.open()

    for execution_id in execution_ids:
        assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    # Twice each. A node may have moved on to a worker that was the next to die.
    assert 60 <= len(gate.calls) <= 90
    wait_until(lambda: flowd.redis.xlen("workflow:tasks") == 0, "the stream to be empty")
    assert flowd.redis.smembers("workflows:active") == set()


def test_sigterm_in_a_fan_out_ends_what_runs_and_a_new_start_finishes_the_rest(
    run_flowd: Run, gate: Gate
) -> None:
    flowd = run_flowd("start", FLOWD_WORKERS__CONCURRENCY="4")
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(*fan(gate, 40))
    gate.wait_for_calls(8)

    flowd.signal(signal.SIGTERM)
    flowd.wait_for_status(lambda status: status["state"] == "STOPPING", "the stop to begin")
    gate.open()

    assert flowd.wait_for_end() == 0
    assert flowd.survivors() == []
    done_before = len(gate.calls)
    assert done_before < 40

    flowd = run_flowd("start")
    flowd.wait_until_running()
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    # Each once: what ran was committed before the end, what did not was not begun.
    assert len(gate.calls) == 40


def test_p14_past_the_grace_period_work_is_cut_off_and_done_again(
    run_flowd: Run, gate: Gate
) -> None:
    flowd = run_flowd("start", FLOWD_SHUTDOWN__GRACE_S="0.5")
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(call(gate, "A"))
    gate.wait_for_calls(1)

    flowd.signal(signal.SIGTERM)

    assert flowd.wait_for_end() == 0
    gate.open()
    flowd = run_flowd("start")
    flowd.wait_until_running()
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    assert len(gate.calls) == 2


def test_p14_a_second_sigterm_ends_everything_within_two_seconds(
    run_flowd: Run, gate: Gate, figure: Figure
) -> None:
    # Longer than this waits for the end.
    flowd = run_flowd("start", FLOWD_SHUTDOWN__GRACE_S=str(10 * PATIENCE_S))
    flowd.wait_until_running()
    execution_id = flowd.submit_and_trigger(call(gate, "A"))
    gate.wait_for_calls(1)
    flowd.signal(signal.SIGTERM)
    flowd.wait_for_status(lambda status: status["state"] == "STOPPING", "the stop to begin")

    asked_at = time.monotonic()
    flowd.signal(signal.SIGTERM)

    assert flowd.wait_for_end() == 0
    took_s = time.monotonic() - asked_at
    figure(f"all ended {took_s:.2f} s after the second TERM")
    assert flowd.survivors() == []
    gate.open()
    flowd = run_flowd("start")
    flowd.wait_until_running()
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"


def test_a_killed_server_comes_back_with_everything_it_acknowledged(
    run_flowd: Run, gate: Gate, figure: Figure
) -> None:
    flowd = run_flowd("start")
    before = flowd.wait_until_running()
    running = flowd.submit_and_trigger(call(gate, "A"), node("B", "A"))
    gate.wait_for_calls(1)
    waiting = flowd.api.submit_workflow(b'{"name": "w", "dag": {"nodes": [%b]}}' % NOOP)

    flowd.kill("redis")
    flowd.wait_for_post("redis", lambda one: one["restarts"] == 1 and one["state"] == "RUNNING")
    answered_at = time.monotonic()
    gate.open()

    wait_until(lambda: status_of(flowd, waiting) == "PENDING", "the API to find it")
    flowd.api.trigger_workflow(waiting)
    assert flowd.wait_for_execution(running) == "COMPLETED"
    assert flowd.wait_for_execution(waiting) == "COMPLETED"
    figure(f"both are COMPLETED {time.monotonic() - answered_at:.2f} s after it answers")
    after = flowd.wait_until_running()
    # Nobody but the server was restarted.
    assert [one["pid"] for one in after["processes"][1:]] == [
        one["pid"] for one in before["processes"][1:]
    ]


def status_of(flowd: Flowd, execution_id: str) -> str | None:
    """None while the API answers that it has no Redis."""
    try:
        return flowd.api.execution_status(execution_id)
    except ApiError as error:
        assert "answered 503" in str(error)
        return None


NOOP = b'{"id": "A", "handler": "noop"}'


def test_p04_killed_api_processes_refuse_nobody(run_flowd: Run) -> None:
    flowd = run_flowd("start", FLOWD_API__PROCESSES="2")
    flowd.wait_until_running()
    api = flowd.api
    is_over = threading.Event()
    answered: list[int] = []
    failures: list[ApiError] = []

    def hammer() -> None:
        while not is_over.is_set():
            try:
                api.execution_status("absent")
            except ApiError as error:
                if "404" in str(error):
                    answered.append(1)
                else:
                    failures.append(error)

    clients = [threading.Thread(target=hammer) for _ in range(10)]
    for client in clients:
        client.start()
    try:
        for _ in range(3):
            for name in ("api-1", "api-2"):
                restarts = flowd.post(name)["restarts"]
                flowd.kill(name)
                flowd.wait_for_post(
                    name, lambda one, n=restarts: one["state"] == "RUNNING" and one["restarts"] > n
                )
    finally:
        is_over.set()
        for client in clients:
            client.join()

    assert len(answered) > 100
    # The requests that were in a killed process's hands are lost; that is at most one a client.
    assert [error for error in failures if "refused" in str(error)] == []
    assert len(failures) <= 6 * len(clients)


def test_p03_a_scheduler_killed_again_and_again_is_back_each_time(
    run_flowd: Run, figure: Figure
) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    nodes = [node("N0"), *(node(f"N{i}", f"N{i - 1}") for i in range(1, 200))]
    execution_ids = [flowd.submit_and_trigger(*nodes) for _ in range(3)]

    took_s = []
    for _ in range(5):
        killed_at = time.monotonic()
        restarts = flowd.post("scheduler")["restarts"]
        flowd.kill("scheduler")
        flowd.wait_for_post(
            "scheduler", lambda one, n=restarts: one["state"] == "RUNNING" and one["restarts"] > n
        )
        took_s.append(time.monotonic() - killed_at)
    # At once, and then with pauses that grow from the second death in a row on.
    pauses = [line["restart_in_s"] for line in flowd.events("child.died")]
    assert (len(pauses), pauses[0]) == (5, 0)
    assert all(pause < 0.3 * nth for nth, pause in enumerate(pauses[1:], 2))
    figure(f"back after {', '.join(f'{one:.2f}' for one in took_s)} s, its pauses among them")

    for execution_id in execution_ids:
        assert flowd.wait_for_execution(execution_id) == "COMPLETED"
        attempts = flowd.redis.hvals(f"workflow:{execution_id}:attempts")
        assert {attempt.split()[0] for attempt in attempts} == {"1"}
    assert flowd.redis.xlen("workflow:tasks") == 0


def test_p07_a_frozen_supervisor_leaves_its_workers_working(run_flowd: Run) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    api = flowd.api

    flowd.signal(signal.SIGSTOP)
    execution_id = api.submit_workflow(b'{"name": "w", "dag": {"nodes": [%b]}}' % NOOP)
    api.trigger_workflow(execution_id)

    wait_until(lambda: api.execution_status(execution_id) == "COMPLETED", "the execution to end")
    flowd.signal(signal.SIGCONT)
    flowd.signal(signal.SIGTERM)
    assert flowd.wait_for_end() == 0


def test_p05_every_child_is_gone_with_a_killed_supervisor(
    run_flowd: Run, gate: Gate, figure: Figure
) -> None:
    flowd = run_flowd("start")
    flowd.wait_until_running()
    flowd.submit_and_trigger(call(gate, "A"))
    gate.wait_for_calls(1)
    count = len(flowd.survivors())
    # The supervisor, its children, and what they have started.
    assert count > len(flowd.wait_until_running()["processes"])

    killed_at = time.monotonic()
    os.kill(flowd.process.pid, signal.SIGKILL)

    wait_until(lambda: not flowd.survivors(), "every process to be gone")
    figure(f"{count} processes gone after {1000 * (time.monotonic() - killed_at):.0f} ms")
