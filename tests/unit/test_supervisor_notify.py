"""What systemd is told, read from a socket in its place."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from flowd.supervisor.notify import Notifier
from tests.daemon import PATIENCE_S


@contextmanager
def bound_socket(address: str) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(address)
        receiver.setblocking(False)
        yield receiver


@pytest.fixture
def receiver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    # Relative: the path of a socket holds 107 bytes.
    monkeypatch.chdir(tmp_path)
    with bound_socket("notify") as receiver:
        yield receiver


@pytest.fixture
def notifier(receiver: socket.socket) -> Notifier:
    return Notifier(receiver.getsockname())


def received(receiver: socket.socket) -> list[str]:
    messages = []
    try:
        while True:
            messages.append(receiver.recv(65536).decode())
    except BlockingIOError:
        return messages


def test_each_message_is_one_datagram_of_assignments(
    notifier: Notifier, receiver: socket.socket
) -> None:
    notifier.ready("serves")
    notifier.status("2 workers run")
    notifier.extend_timeout(1.5)
    notifier.watchdog()
    notifier.stopping()

    assert received(receiver) == [
        "READY=1\nSTATUS=serves",
        "STATUS=2 workers run",
        "EXTEND_TIMEOUT_USEC=1500000",
        "WATCHDOG=1",
        "STOPPING=1",
    ]


def test_a_reload_carries_the_monotonic_clock_in_the_same_message(
    notifier: Notifier, receiver: socket.socket
) -> None:
    before = time.monotonic_ns() // 1000
    notifier.reloading()

    (message,) = received(receiver)
    kind, clock = message.split("\n")
    assert kind == "RELOADING=1"
    assert before <= int(clock.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_a_status_cannot_forge_another_assignment(
    notifier: Notifier, receiver: socket.socket
) -> None:
    notifier.status("bad\nREADY=1\udcff")

    assert received(receiver) == ["STATUS=bad READY=1?"]


def test_the_environment_names_the_socket_and_is_not_passed_on(receiver: socket.socket) -> None:
    environ = {
        "NOTIFY_SOCKET": str(Path.cwd() / "notify"),
        "WATCHDOG_USEC": "30000000",
        "WATCHDOG_PID": str(os.getpid()),
        "PATH": "/bin",
    }
    if len(environ["NOTIFY_SOCKET"]) > 107:
        pytest.skip("the folder for temporary files has too long a path")

    notifier = Notifier.from_environ(environ)
    notifier.watchdog()

    assert received(receiver) == ["WATCHDOG=1"]
    assert notifier.watchdog_every_s == 15.0
    assert environ == {"PATH": "/bin"}


def test_an_abstract_socket_is_reached() -> None:
    name = f"flowd-test-{os.getpid()}-{time.monotonic_ns()}"
    with bound_socket(f"\0{name}") as receiver:
        Notifier.from_environ({"NOTIFY_SOCKET": f"@{name}"}).ready("serves")

        assert received(receiver) == ["READY=1\nSTATUS=serves"]


@pytest.mark.parametrize(
    ("usec", "pid", "every_s"),
    [
        ("4000000", "", 2.0),
        ("4000000", "1", None),
        ("", "", None),
        ("0", "", None),
        ("soon", "", None),
    ],
)
def test_the_watchdog_is_fed_twice_in_its_time_by_the_one_it_watches(
    usec: str, pid: str, every_s: float | None
) -> None:
    environ = {"NOTIFY_SOCKET": "/run/systemd/notify", "WATCHDOG_USEC": usec, "WATCHDOG_PID": pid}

    assert Notifier.from_environ(environ).watchdog_every_s == every_s


@pytest.mark.parametrize("path", ["", "vsock:2:1234", "notify"])
def test_without_a_socket_nothing_is_sent(path: str, receiver: socket.socket) -> None:
    notifier = Notifier.from_environ({"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "1000000"})

    notifier.ready("serves")
    notifier.watchdog()

    assert notifier.watchdog_every_s is None
    assert received(receiver) == []


def test_a_systemd_that_does_not_read_makes_nobody_wait_and_hears_the_state_later(
    notifier: Notifier, receiver: socket.socket
) -> None:
    for _ in range(1000):
        notifier.watchdog()

    def tell() -> None:
        notifier.ready("serves")
        notifier.status("lost")

    telling = threading.Thread(target=tell, daemon=True)
    telling.start()
    telling.join(PATIENCE_S)
    assert not telling.is_alive()

    assert set(received(receiver)) == {"WATCHDOG=1"}
    notifier.watchdog()
    assert received(receiver) == ["READY=1\nSTATUS=serves", "WATCHDOG=1"]


def test_a_socket_that_is_gone_is_no_reason_to_die(
    notifier: Notifier, receiver: socket.socket
) -> None:
    Path(receiver.getsockname()).unlink()

    notifier.ready("serves")
    for _ in range(100):
        notifier.reloading()
    with bound_socket("notify") as again:
        notifier.stopping()
        assert received(again)[-1] == "STOPPING=1"
