"""The control socket: answers one line with one line, and nobody can hold it up."""

from __future__ import annotations

import json
import os
import selectors
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from flowd.supervisor.asking import SOCKET_FILE, ControlUnavailable, ask
from flowd.supervisor.control import ControlServer


class Loop:
    """A supervisor's loop with nothing in it but the control socket."""

    def __init__(self, folder: Path) -> None:
        self.selector = selectors.DefaultSelector()
        self.control = ControlServer(folder, self.selector, self.answer)
        self._is_over = False
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("command") == "large":
            return {"text": "x" * 4_000_000}
        if request.get("command") != "status":
            raise ValueError("unknown command")
        return {"pid": 1}

    def _run(self) -> None:
        while not self._is_over:
            for key, _ in self.selector.select(0.01):
                key.data()

    def stop(self) -> None:
        self._is_over = True
        self._thread.join()
        self.control.close()
        self.selector.close()


@pytest.fixture(autouse=True)
def loop(tmp_path: Path) -> Iterator[Loop]:
    loop = Loop(tmp_path)
    yield loop
    loop.stop()


def connect(folder: Path) -> socket.socket:
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(10)
    connection.connect(str(folder / SOCKET_FILE))
    return connection


def answer_to(folder: Path, line: bytes) -> Any:
    with connect(folder) as connection, connection.makefile("rb") as reader:
        connection.sendall(line)
        return json.loads(reader.read() or "null")


def test_a_request_is_answered(tmp_path: Path) -> None:
    assert ask(tmp_path, "status") == {"pid": 1}


def test_the_socket_is_for_its_owner_alone(tmp_path: Path) -> None:
    assert (tmp_path / SOCKET_FILE).stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "line",
    [b"{\n", b"[]\n", b'{"command": "fly"}\n', b"\xff\n", b"\n", b"[" * 4000 + b"\n"],
    ids=["cut", "no object", "unknown", "not UTF-8", "empty", "thousands deep"],
)
def test_nonsense_is_answered_with_an_error(tmp_path: Path, line: bytes) -> None:
    assert set(answer_to(tmp_path, line)) == {"error"}
    assert ask(tmp_path, "status") == {"pid": 1}


def test_a_line_without_end_is_cut_off(tmp_path: Path) -> None:
    with connect(tmp_path) as connection, pytest.raises((BrokenPipeError, ConnectionResetError)):
        while True:
            connection.sendall(b"x" * 4096)


def test_clients_that_say_nothing_or_do_not_read_hold_up_nobody(tmp_path: Path) -> None:
    silent = [connect(tmp_path) for _ in range(20)]
    deaf = [connect(tmp_path) for _ in range(5)]
    for connection in deaf:
        connection.sendall(b'{"command": "large"}\n')

    assert ask(tmp_path, "status") == {"pid": 1}

    # A slow reader still gets all of it.
    with deaf[-1].makefile("rb") as reader:
        assert len(json.loads(reader.read())["text"]) == 4_000_000
    for connection in silent + deaf:
        connection.close()


def test_more_clients_than_there_is_room_for_push_out_the_oldest(tmp_path: Path) -> None:
    many = [connect(tmp_path) for _ in range(100)]

    assert ask(tmp_path, "status") == {"pid": 1}
    assert many[0].recv(1) == b""
    for connection in many:
        connection.close()


def test_a_folder_with_a_very_long_path_has_a_control_socket_too(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 30) / ("longer" * 20)
    folder.mkdir(parents=True)
    loop = Loop(folder)

    assert ask(folder, "status") == {"pid": 1}
    loop.stop()
    assert list(folder.iterdir()) == []


def test_where_nobody_listens_asking_says_so(tmp_path: Path) -> None:
    with pytest.raises(ControlUnavailable):
        ask(tmp_path / "absent", "status")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can be somebody else")
def test_another_user_is_not_listened_to(tmp_path: Path) -> None:
    program = (
        "import os, socket, sys; os.setgroups([]); os.setuid(65534); "
        "connection = socket.socket(socket.AF_UNIX); connection.connect('control.sock'); "
        'connection.sendall(b\'{"command": "status"}\\n\'); print(connection.recv(100))'
    )
    # Somebody has opened what is closed to all others.
    (tmp_path / SOCKET_FILE).chmod(0o777)
    for folder in (tmp_path, *tmp_path.parents):
        if folder.is_relative_to("/tmp") and folder != Path("/tmp"):
            folder.chmod(0o755)

    run = subprocess.run(
        [sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True
    )

    assert run.stdout in ("b''\n", "") or "reset" in run.stderr.lower(), run.stderr
    assert "pid" not in run.stdout
    assert ask(tmp_path, "status") == {"pid": 1}
