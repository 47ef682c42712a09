"""What systemd hears of a `flowd start`, from its first sign of life to its last."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from flowd.supervisor.embedded_server import find_binary
from tests.daemon import PATIENCE_S, wait_until
from tests.local_services import Reply, Request, json_reply, running_service
from tests.process.flowd_process import CONFIG, Flowd, node

Run = Callable[..., Flowd]

WATCHDOG_S = 0.4


class FakeSystemd:
    """Hears what the flowd of `start` has to say, and when."""

    def __init__(self, run_flowd: Run) -> None:
        self._run_flowd = run_flowd
        # An abstract one: the path of a temporary folder may be too long for a socket.
        name = f"flowd-test-{os.getpid()}-{time.monotonic_ns()}"
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self._socket.bind(f"\0{name}")
        self._name = name
        self._heard: list[tuple[float, str]] = []
        self._reader = threading.Thread(target=self._read)
        self._reader.start()

    def start(self, **environ: str) -> Flowd:
        environ["NOTIFY_SOCKET"] = f"@{self._name}"
        environ["WATCHDOG_USEC"] = str(int(WATCHDOG_S * 1e6))
        return self._run_flowd("start", **environ)

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._reader.join()
        self._socket.close()

    def now(self) -> int:
        """A mark for `heard`: behind everything that was sent until now, read or not."""
        mark = f"mark {time.monotonic_ns()}"
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sender:
            sender.sendto(mark.encode(), f"\0{self._name}")
        self.wait_for(mark)
        return [text for _, text in self._heard].index(mark)

    def heard(self, start: str, since: int = 0) -> list[str]:
        """The messages that begin so."""
        return [text for _, text in self._heard[since:] if text.startswith(start)]

    def wait_for(self, start: str, since: int = 0) -> str:
        wait_until(lambda: self.heard(start, since), f"systemd to hear {start}")
        return self.heard(start, since)[0]

    def order(self, *starts: str, since: int = 0) -> list[str]:
        """Those of `starts` that were heard, in the order they came."""
        lines = (text.partition("=")[0] for _, text in self._heard[since:])
        return [line for line in lines if line in starts]

    def longest_silence_s(self, since: int, until: float) -> float:
        """The longest time without a WATCHDOG."""
        times = [at for at, text in self._heard[since:] if text == "WATCHDOG=1"]
        return max(b - a for a, b in zip([*times[:1], *times], [*times, until], strict=True))

    def _read(self) -> None:
        while message := self._socket.recv(65536):
            self._heard.append((time.monotonic(), message.decode()))


@pytest.fixture
def systemd(run_flowd: Run) -> Iterator[FakeSystemd]:
    systemd = FakeSystemd(run_flowd)
    yield systemd
    systemd.close()


def test_ready_is_said_when_the_api_answers_and_a_worker_lives(systemd: FakeSystemd) -> None:
    flowd = systemd.start()
    assert systemd.wait_for("READY=1").split("\n")[1].startswith("STATUS=")

    flowd.submit_and_trigger(node("A"))
    status = flowd.status()
    assert status is not None
    states = {one["role"]: one["state"] for one in status["processes"]}
    assert (states["api"], states["server"], status["state"]) == ("RUNNING",) * 3
    assert "RUNNING" in [one["state"] for one in status["processes"] if one["role"] == "worker"]

    flowd.wait_until_running()
    count = len(status["processes"])
    wait_until(
        lambda: systemd.heard(f"STATUS={count} of {count} processes run"), "the status sentence"
    )
    assert len(systemd.heard("READY=1")) == 1


def test_while_it_starts_it_is_not_ready(systemd: FakeSystemd, tmp_path: Path) -> None:
    server = tmp_path / "slow-server"
    binary = find_binary(os.environ.get("FLOWD_TEST_REDIS_SERVER"))
    wait = "while [ ! -e may-start ]; do sleep 0.02; done"
    server.write_text(f'#!/bin/sh\ncd {tmp_path}\n{wait}\nexec {binary} "$@"\n')
    server.chmod(0o755)

    flowd = systemd.start(FLOWD_REDIS__SERVER=str(server))
    flowd.wait_for_status(lambda status: status["state"] == "STARTING", "flowd to start")
    systemd.wait_for("WATCHDOG=1")
    assert systemd.heard("READY=1") == []

    (tmp_path / "may-start").touch()
    systemd.wait_for("READY=1")


def test_the_watchdog_is_fed_while_all_is_well(systemd: FakeSystemd) -> None:
    systemd.start().wait_until_running()
    begun_at, mark = time.monotonic(), systemd.now()

    wait_until(lambda: len(systemd.heard("WATCHDOG=1", mark)) >= 10, "ten signs of life")

    # Twice in the time that is allowed, as sd_watchdog_enabled(3) asks for, and no oftener.
    assert time.monotonic() - begun_at > 4 * WATCHDOG_S


def test_a_stopped_supervisor_is_silent_and_its_workers_go_on(systemd: FakeSystemd) -> None:
    flowd = systemd.start()
    flowd.wait_until_running()
    api = flowd.api
    flowd.signal(signal.SIGSTOP)
    wait_until(lambda: is_stopped(flowd.process.pid), "the supervisor to stop")
    mark = systemd.now()

    execution_id = api.submit_workflow(definition_of_one_node())
    api.trigger_workflow(execution_id)
    wait_until(lambda: api.execution_status(execution_id) == "COMPLETED", "the node to run")
    time.sleep(2 * WATCHDOG_S)
    assert systemd.heard("WATCHDOG=1", mark) == []

    flowd.signal(signal.SIGCONT)
    systemd.wait_for("WATCHDOG=1", mark)


def test_a_hung_child_silences_the_watchdog_until_it_is_replaced(
    systemd: FakeSystemd, tmp_path: Path
) -> None:
    (tmp_path / "flowd.toml").write_text(CONFIG + "[supervisor]\nhung_after_s = 3\n")
    flowd = systemd.start()
    flowd.wait_until_running()
    mark = systemd.now()

    pid = flowd.kill("worker-1", signal.SIGSTOP)
    flowd.wait_for_post("worker-1", lambda post: post["pid"] not in (None, pid))

    # From finding it hung to its kill: the time it has to write its stacks.
    assert systemd.longest_silence_s(mark, time.monotonic()) > WATCHDOG_S
    assert flowd.events("child.hung") != []
    systemd.wait_for("WATCHDOG=1", systemd.now())


def test_a_reload_is_told_from_its_beginning_to_its_end(
    systemd: FakeSystemd, tmp_path: Path
) -> None:
    flowd = systemd.start()
    flowd.wait_until_running()
    mark = systemd.now()

    flowd.signal(signal.SIGHUP)

    assert "\nMONOTONIC_USEC=" in systemd.wait_for("RELOADING=1", mark)
    systemd.wait_for("READY=1", mark)
    assert systemd.order("RELOADING", "READY", since=mark) == ["RELOADING", "READY"]
    # A file that is no good: flowd goes on, and says that it is over.
    mark = systemd.now()
    (tmp_path / "flowd.toml").write_text("bad = 1\n")
    flowd.signal(signal.SIGHUP)
    systemd.wait_for("READY=1", mark)
    assert systemd.order("RELOADING", "READY", since=mark) == ["RELOADING", "READY"]


def test_a_drain_asks_for_more_time_until_it_is_over(systemd: FakeSystemd) -> None:
    may_answer, was_called = threading.Event(), threading.Event()

    def answer(_request: Request) -> Reply:
        was_called.set()
        may_answer.wait(10 * PATIENCE_S)
        return json_reply({"ok": True})

    with running_service(answer) as service:
        allowed = urlsplit(service.url).netloc
        flowd = systemd.start(FLOWD_HANDLERS__CALL_EXTERNAL_SERVICE__ALLOW=allowed)
        flowd.wait_until_running()
        flowd.submit_and_trigger(node("A", handler="call_external_service", url=service.url))
        assert was_called.wait(PATIENCE_S)
        mark = systemd.now()

        flowd.signal(signal.SIGTERM)

        systemd.wait_for("STOPPING=1", mark)
        wait_until(lambda: len(systemd.heard("EXTEND_TIMEOUT_USEC=", mark)) >= 3, "extensions")
        assert flowd.process.poll() is None
        # It is watched while it drains, too.
        assert systemd.heard("WATCHDOG=1", mark) != []
        may_answer.set()
        assert flowd.wait_for_end() == 0
    assert systemd.heard("READY=1", mark) == []


def definition_of_one_node() -> bytes:
    return b'{"name": "test", "dag": {"nodes": [{"id": "A", "handler": "noop"}]}}'


def is_stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T"
