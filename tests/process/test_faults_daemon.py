"""Faults of the daemon and around it: rows P3 to P5, P7 and P12 to P17 of tests/README.md."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import psutil
import pytest

from flowd.supervisor.watch import LOOK_EVERY_S
from tests.daemon import PATIENCE_S, is_all_running, is_gone, wait_until
from tests.private_server import PrivateServer
from tests.process.faulty import FaultyFlowd, breed
from tests.process.flowd_process import CONFIG, node

Run = Callable[..., FaultyFlowd]
Figure = Callable[[str], None]

CHAIN = (node("A"), node("B", "A"), node("C", "B"))
CLIENTS = 40


class Hammer:
    """Clients that ask without pause, each on a connection it keeps as long as it is kept."""

    def __init__(self, url: str) -> None:
        self._address = url.removeprefix("http://")
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(CLIENTS)]
        self.statuses: list[int] = []
        self.errors: list[Exception] = []

    def _ask(self) -> None:
        connection = HTTPConnection(self._address, timeout=PATIENCE_S)
        while not self._is_over.is_set():
            try:
                connection.request("GET", "/workflows/absent")
                answer = connection.getresponse()
                answer.read()
                self.statuses.append(answer.status)
            except Exception as error:  # noqa: BLE001 - any is what the test is about
                self.errors.append(error)
                connection.close()
            time.sleep(0.02)
        connection.close()

    @property
    def refused(self) -> list[Exception]:
        return [error for error in self.errors if isinstance(error, ConnectionRefusedError)]

    def start(self) -> None:
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join()


@contextmanager
def hammering(url: str) -> Iterator[Hammer]:
    hammer = Hammer(url)
    hammer.start()
    try:
        yield hammer
    finally:
        hammer.stop()


def pids(status: dict[str, Any]) -> dict[str, int]:
    return {one["name"]: one["pid"] for one in status["processes"]}


def roll(flowd: FaultyFlowd) -> None:
    """SIGHUP, and wait until every child but the server is another."""
    before = set(list(pids(flowd.wait_until_running()).values())[1:])
    flowd.signal(signal.SIGHUP)
    flowd.wait_for_status(
        lambda status: (
            is_all_running(status)
            and not status["rolling"]
            and not before & set(pids(status).values())
        ),
        "every child to be another",
    )


def test_p04_forty_clients_notice_nothing_of_a_reload(run_faulty: Run) -> None:
    flowd = run_faulty("start", FLOWD_API__PROCESSES="2")
    flowd.wait_until_running()
    with hammering(flowd.url) as hammer:
        wait_until(lambda: len(hammer.statuses) >= CLIENTS, "the clients to begin")

        roll(flowd)
        roll(flowd)

    assert hammer.errors == []
    assert set(hammer.statuses) == {404}
    flowd.check_and_stop()


def test_p04_killed_api_processes_cost_at_most_the_requests_they_had(
    run_faulty: Run, figure: Figure
) -> None:
    flowd = run_faulty("start", FLOWD_API__PROCESSES="2")
    flowd.wait_until_running()
    kills = 0
    with hammering(flowd.url) as hammer:
        wait_until(lambda: len(hammer.statuses) >= CLIENTS, "the clients to begin")
        for name in ("api-1", "api-2", "api-1"):
            restarts = flowd.post(name)["restarts"]
            flowd.kill(name)
            kills += 1
            flowd.wait_for_post(
                name, lambda one, n=restarts: one["state"] == "RUNNING" and one["restarts"] > n
            )
        # And once more while everything is rolled.
        known = pids(flowd.wait_until_running())
        flowd.signal(signal.SIGHUP)
        os.kill(known["api-2"], signal.SIGKILL)
        kills += 1
        flowd.wait_for_status(
            lambda status: is_all_running(status) and not status["rolling"], "the roll to be over"
        )

    assert hammer.refused == []
    figure(
        f"0 of {len(hammer.statuses)} refused, {len(hammer.errors)} cut off, by {kills} kills "
        f"under {CLIENTS} clients"
    )
    # A killed process takes along the connections it had, each with one request at most.
    assert len(hammer.errors) <= kills * CLIENTS
    assert set(hammer.statuses) == {404}
    flowd.check_and_stop()


def test_p05_what_handlers_started_is_gone_with_the_supervisor(run_faulty: Run) -> None:
    """Workers died with it, and the programs they had started went on beside the next start's."""
    flowd = run_faulty("start")
    flowd.wait_until_running()
    execution_id, worker, grandchildren = breed(flowd)
    # A session of its own is noticed at the next look.
    looked_at = time.monotonic()
    wait_until(lambda: time.monotonic() > looked_at + 5 * LOOK_EVERY_S, "several looks")

    flowd.process.kill()
    wait_until(lambda: all(map(is_gone, grandchildren)), "both to be gone")
    wait_until(lambda: not flowd.survivors(), "every process to be gone")

    assert is_gone(worker)
    flowd = run_faulty("start")
    flowd.wait_until_running()
    assert flowd.wait_for_execution(execution_id) == "COMPLETED"
    flowd.check_and_stop()


def test_p07_a_frozen_supervisor_no_longer_feeds_the_watchdog(
    run_faulty: Run, tmp_path: Path, figure: Figure
) -> None:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(str(tmp_path / "notify"))
        systemd.settimeout(PATIENCE_S)
        flowd = run_faulty("start", NOTIFY_SOCKET=str(tmp_path / "notify"), WATCHDOG_USEC="400000")
        flowd.wait_until_running()
        while b"WATCHDOG=1" not in systemd.recv(4096):
            pass

        flowd.signal(signal.SIGSTOP)
        wait_until(lambda: flowd.supervisor.status() == psutil.STATUS_STOPPED, "it to stop")
        assert not is_fed(systemd, 1.5)
        figure("no WATCHDOG=1 in 1.5 s; one every 0.2 s before and after")
        # The workers know nothing of it.
        flowd.process.send_signal(signal.SIGCONT)
        assert is_fed(systemd, PATIENCE_S)
        assert flowd.wait_for_execution(flowd.submit_and_trigger(*CHAIN)) == "COMPLETED"
    flowd.check_and_stop()


def is_fed(systemd: socket.socket, seconds: float) -> bool:
    """Whether a sign of life is sent within this time, after those that are waiting to be read."""
    systemd.setblocking(False)
    try:
        while True:
            systemd.recv(4096)
    except BlockingIOError:
        pass
    systemd.settimeout(seconds)
    try:
        while b"WATCHDOG=1" not in systemd.recv(4096):
            pass
    except TimeoutError:
        return False
    return True


def test_p12_a_worker_that_cannot_start_is_given_up_with_its_traceback(
    run_faulty: Run, figure: Figure
) -> None:
    started_at = time.monotonic()
    flowd = run_faulty("start", FLOWD_TEST_BROKEN_WORKER="1")

    assert flowd.wait_for_end() == 70
    took_s = time.monotonic() - started_at
    figure(f"given up after {took_s:.1f} s with exit code 70")
    assert len(flowd.events("role.failed")) >= 3
    assert "worker-1 was started 3 times and never became ready" in flowd.stderr or (
        "worker-2 was started 3 times and never became ready" in flowd.stderr
    )
    assert "No module named 'the_module_that_is_missing'" in flowd.stderr
    assert flowd.survivors() == []


def test_p12_a_redis_that_is_not_there_is_named(run_faulty: Run, tmp_path: Path) -> None:
    (tmp_path / "flowd.toml").write_text(
        "[api]\nport = 0\n[redis]\nurl = 'redis://127.0.0.1:1'\ndata_dir = 'data'\n"
    )
    flowd = run_faulty("start")

    assert flowd.wait_for_end() == 69
    assert "no Redis answers at 127.0.0.1:1" in flowd.stderr
    assert flowd.survivors() == []


def test_p13_a_worker_that_dies_again_and_again_backs_off_and_the_rest_goes_on(
    run_faulty: Run, figure: Figure
) -> None:
    flowd = run_faulty("start")
    flowd.wait_until_running()

    def kill_until_it_backs_off() -> bool:
        one = flowd.post("worker-1")
        if one["state"] == "RUNNING":
            # It may be dead already, and the supervisor about to take note.
            with contextlib.suppress(ProcessLookupError):
                os.kill(one["pid"], signal.SIGKILL)
        return bool(one["state"] == "BACKOFF" and one["restarts"] >= 4)

    wait_until(kill_until_it_backs_off, "the pause to grow")

    assert flowd.post("worker-2")["restarts"] == 0
    pauses = [line["restart_in_s"] for line in flowd.events("child.died")]
    assert pauses[0] == 0
    assert max(pauses) > 0.1
    figure(f"pauses of {', '.join(f'{pause:.2f}' for pause in pauses)} s")
    assert flowd.wait_for_execution(flowd.submit_and_trigger(*CHAIN)) == "COMPLETED"
    flowd.check_and_stop()


def test_p14_a_supervisor_killed_at_any_moment_of_its_stop_leaves_work_that_goes_on(
    run_faulty: Run, figure: Figure
) -> None:
    moments = random.Random(14)
    execution_ids = []
    took_s = []
    for _ in range(4):
        flowd = run_faulty("start")
        flowd.wait_until_running()
        many = [node(f"N{number}", handler="sleep", seconds=0.05) for number in range(50)]
        execution_ids.append(flowd.submit_and_trigger(*many))
        flowd.wait_for_calls(1)

        flowd.signal(signal.SIGTERM)
        time.sleep(moments.uniform(0, 0.3))
        flowd.process.kill()

        killed_at = time.monotonic()
        wait_until(lambda flowd=flowd: not flowd.survivors(), "every process to be gone")
        took_s.append(time.monotonic() - killed_at)
    figure(f"4 kills, all gone within {max(took_s):.2f} s; 200 of 200 nodes COMPLETED")
    flowd = run_faulty("start")
    flowd.wait_until_running()
    for execution_id in execution_ids:
        assert flowd.wait_for_execution(execution_id) == "COMPLETED"
        results = flowd.results(execution_id)
        assert len(results) == 50
    assert flowd.redis.xlen("workflow:tasks") == 0
    flowd.check_and_stop()


def test_p15_the_lock_decides_and_not_the_pid_in_the_file(run_faulty: Run, figure: Figure) -> None:
    first = run_faulty("start")
    first.wait_until_running()
    pid_file = first.data_dir / "flowd.pid"

    # A file that lies in either direction changes nothing.
    pid_file.write_text("1\n")
    began_at = time.monotonic()
    second = run_faulty("start")
    assert second.wait_for_end() == 75
    figure(f"the second ends after {time.monotonic() - began_at:.2f} s with exit code 75")
    assert f"(pid {first.process.pid})" in second.stderr
    first.check_and_stop()
    pid_file.write_text(f"{os.getpid()}\n")

    third = run_faulty("start")
    third.wait_until_running()
    third.check_and_stop()


@pytest.fixture
def shared_server(tmp_path: Path) -> Iterator[PrivateServer]:
    server = PrivateServer()
    server.start()
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "flowd.toml").write_text(
            f"[api]\nport = 0\n[redis]\nurl = 'unix://{server.socket_path}'\ndata_dir = 'data'\n"
        )
    yield server
    server.stop()


@contextmanager
def host(tmp_path: Path, name: str) -> Iterator[FaultyFlowd]:
    """A flowd with a data directory of its own, as on a machine of its own."""
    with FaultyFlowd(
        tmp_path / name, ("start",), FLOWD_TEST_LEASE_S="3", FLOWD_SUPERVISOR__HUNG_AFTER_S="0"
    ) as flowd:
        flowd.wait_until_running()
        yield flowd


@pytest.mark.usefixtures("shared_server")
def test_p16_two_hosts_share_the_work_and_freezing_one_harms_nothing(
    tmp_path: Path, figure: Figure
) -> None:
    with host(tmp_path, "one") as one, host(tmp_path, "two") as two:
        many = [node(f"N{number}", handler="sleep", seconds=0.1) for number in range(400)]
        execution_id = one.submit_and_trigger(*many)
        assert two.wait_for_execution(execution_id) == "COMPLETED"
        calls = [call["node"] for flowd in (one, two) for call in flowd.calls()]
        assert sorted(calls) == sorted(each["id"] for each in many)
        assert one.calls()
        assert two.calls()

        both = [two.submit_and_trigger(node("A", handler="held")) for _ in range(20)]
        wait_until(lambda: len(one.calls("A")) + len(two.calls("A")) == 20, "all to be running")
        mine = len(one.calls("A"))
        assert mine > 0
        frozen = one.survivors()
        for process in frozen:
            process.send_signal(signal.SIGSTOP)
        two.open()
        assert [two.wait_for_execution(each) for each in both] == ["COMPLETED"] * 20
        assert len(two.calls("A")) == 20

        for process in frozen:
            process.send_signal(signal.SIGCONT)
        one.open()
        wait_until(lambda: len(one.events("lease.lost")) == 2, "the frozen to begin anew")
        # Nothing was overwritten, and it works again.
        results = [two.results(each)["A"]["attempt"] for each in both]
        assert sorted(results) == [1] * (20 - mine) + [2] * mine
        figure(f"400 nodes on both, each once; {mine} of 20 redone once, 0 commits overwritten")
        assert one.wait_for_execution(one.submit_and_trigger(*many)) == "COMPLETED"
        for flowd in (one, two):
            flowd.check_descriptors()
            flowd.signal(signal.SIGTERM)
            assert flowd.wait_for_end() == 0
            assert flowd.survivors() == []


def test_p17_a_full_disk_for_the_log_stops_nobody(
    run_faulty: Run, tmp_path: Path, figure: Figure
) -> None:
    (tmp_path / "flowd.toml").write_text(CONFIG + "[log]\nfile = '/dev/full'\n")
    flowd = run_faulty("start")
    flowd.wait_until_running()

    flowd.kill("worker-1")

    assert flowd.wait_for_execution(flowd.submit_and_trigger(*CHAIN)) == "COMPLETED"
    figure(f"{flowd.post('worker-1')['restarts']} worker restarted: the one that was killed")
    flowd.signal(signal.SIGUSR1)
    flowd.check_and_stop()
