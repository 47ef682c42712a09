"""The control socket: a unix socket that answers while Redis and HTTP are down.

A request is one line of JSON, `{"command": "status"}`, and so is its answer, which ends the
connection. Only root and the user flowd runs as are listened to. The server side never blocks the
supervisor's loop: a client that does not read waits alone.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import socket
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from flowd.errors import FlowdError
from flowd.log import get_logger
from flowd.owned_folder import only_for_owner
from flowd.socket_path import reachable_path
from flowd.supervisor.asking import SOCKET_FILE

log = get_logger(__name__)

_LINE_BYTES_MAX = 4096
_CLIENTS_MAX = 32
_WAITING_MAX = 128


class ControlServer:
    """Listens in the data directory; `answer` gets each request on the supervisor's loop."""

    def __init__(
        self,
        data_dir: Path,
        selector: selectors.BaseSelector,
        answer: Callable[[dict[str, Any]], dict[str, Any]],
    ) -> None:
        self._path = reachable_path(data_dir / SOCKET_FILE)
        self._selector = selector
        self._answer = answer
        self._clients: list[_Client] = []
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.setblocking(False)
        # The caller holds the directory's lock: a socket file found here has no owner any more.
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)  # noqa: PTH108 - the path may lead through /proc
        with only_for_owner():
            self._listener.bind(self._path)
        self._listener.listen(_WAITING_MAX)
        selector.register(self._listener, selectors.EVENT_READ, self._accept)

    def close_in_child(self) -> None:
        self._listener.close()
        for client in self._clients:
            client.connection.close()

    def close(self) -> None:
        for client in list(self._clients):
            self._drop(client)
        self._selector.unregister(self._listener)
        self._listener.close()
        with contextlib.suppress(OSError):
            os.unlink(self._path)  # noqa: PTH108

    def _accept(self) -> None:
        try:
            connection, _ = self._listener.accept()
        except OSError:
            return
        user = _user_of(connection)
        if user not in (0, os.geteuid()):
            log.warning("control.refused", error=f"the user {user} may not ask")
            connection.close()
            return
        connection.setblocking(False)
        client = _Client(connection)
        self._clients.append(client)
        self._selector.register(connection, selectors.EVENT_READ, lambda: self._serve(client))
        # The one that has waited longest goes: it asked nothing, or does not read its answer.
        if len(self._clients) > _CLIENTS_MAX:
            self._drop(self._clients[0])

    def _serve(self, client: _Client) -> None:
        try:
            is_done = client.go_on(self._reply)
        except OSError:
            is_done = True
        if is_done:
            self._drop(client)
        elif client.unsent:
            self._selector.modify(
                client.connection, selectors.EVENT_WRITE, lambda: self._serve(client)
            )

    def _reply(self, line: bytes) -> bytes:
        try:
            request = json.loads(line)
            if not isinstance(request, dict):
                raise TypeError("a request is a JSON object")
            answer = self._answer(request)
        except FlowdError as error:
            answer = {"error": f"{error}", "code": error.code}
        except (ValueError, TypeError, RecursionError) as error:
            log.debug("control.refused", error=error)
            answer = {"error": f"{error}"}
        return json.dumps(answer).encode() + b"\n"

    def _drop(self, client: _Client) -> None:
        self._clients.remove(client)
        with contextlib.suppress(KeyError):
            self._selector.unregister(client.connection)
        client.connection.close()


def _user_of(connection: socket.socket) -> int:
    """Who connected, as the kernel knows it (unix(7), SO_PEERCRED)."""
    size = struct.calcsize("3i")
    credentials = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size)
    _, user, _ = struct.unpack("3i", credentials)
    return int(user)


class _Client:
    """One connection: what it sent of its line so far, and what it has not read yet."""

    def __init__(self, connection: socket.socket) -> None:
        self.connection = connection
        self.received = b""
        self.unsent = b""

    def go_on(self, reply: Callable[[bytes], bytes]) -> bool:
        """Read or write what is possible now; True when this connection is at its end."""
        if not self.unsent:
            data = self.connection.recv(_LINE_BYTES_MAX)
            self.received += data
            line, newline, _ = self.received.partition(b"\n")
            if not newline:
                return not data or len(line) > _LINE_BYTES_MAX
            self.unsent = reply(line)
        with contextlib.suppress(BlockingIOError):
            self.unsent = self.unsent[self.connection.send(self.unsent) :]
        return not self.unsent
