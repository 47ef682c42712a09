"""A bare connection to Redis: one socket, hiredis, no client in between."""

from __future__ import annotations

import socket
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import hiredis

from flowd.config import EMBEDDED_USER
from flowd.supervisor.access import read_password

Command = Sequence[str | bytes | int]

# Nothing here takes a tenth of this; a line that hangs is a defect, not a figure.
TIMEOUT_S = 60.0
_CHUNK_BYTES = 1 << 16
_COMMANDS_PER_WRITE = 1000


def pack(commands: Iterable[Command]) -> bytes:
    return b"".join([hiredis.pack_command(tuple(command)) for command in commands])


class Line:
    """Commands out, replies in, in order. Replies are bytes; an error reply is raised."""

    def __init__(self, socket_path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(TIMEOUT_S)
        self._socket.connect(socket_path)
        self._reader = hiredis.Reader()
        # The bench asks what no client of flowd may.
        if password := read_password(Path(socket_path).parent):
            self.ask("AUTH", EMBEDDED_USER, password)

    def __enter__(self) -> Line:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._socket.close()

    def send(self, packed: bytes) -> None:
        self._socket.sendall(packed)

    def read(self) -> Any:
        """The next reply, or the next push. Raises TimeoutError, or the error reply."""
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(_CHUNK_BYTES)
            if not data:
                raise ConnectionError("the server closed the connection")
            self._reader.feed(data)
        if isinstance(reply, hiredis.ReplyError):
            raise reply
        return reply

    def ask(self, *command: str | bytes | int) -> Any:
        """The reply to one command."""
        self.send(hiredis.pack_command(command))
        return self.read()

    def ask_all(self, commands: Sequence[Command]) -> list[Any]:
        """The replies to many commands, in writes of a bounded size."""
        replies = []
        for at in range(0, len(commands), _COMMANDS_PER_WRITE):
            some = commands[at : at + _COMMANDS_PER_WRITE]
            self.send(pack(some))
            replies += [self.read() for _ in some]
        return replies


class Watch:
    """Sleeps until a key is written, without asking again and again.

    The server remembers the keys this connection has read and pushes their names when they change
    (CLIENT TRACKING): nobody polls, and a write costs the server one look-up in a small table.
    """

    def __init__(self, socket_path: str) -> None:
        self._line = Line(socket_path)
        self._line.ask("HELLO", 3)
        self._line.ask("CLIENT", "TRACKING", "ON")

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._line.close()

    def begin(self, key: str) -> None:
        """Ask for the key without waiting for its value; `wait` does."""
        self._line.send(pack([("GET", key)]))

    def wait_until_written(self, key: str) -> None:
        """Return when the key of the last `begin` has a value: at once, or when it is written."""
        value = self._next_reply()
        if value is None:
            self._wait_for_push(key.encode())

    def wait_while(self, key: str, value: bytes) -> bool:
        """Return when the key holds something else than `value`; False when it did at once."""
        has_waited = False
        while True:
            self.begin(key)
            if self._next_reply() != value:
                return has_waited
            self._wait_for_push(key.encode())
            has_waited = True

    def _next_reply(self) -> Any:
        """Pushes that arrive in between speak of keys nobody waits for any more."""
        while isinstance(reply := self._line.read(), hiredis.PushNotification):
            pass
        return reply

    def _wait_for_push(self, key: bytes) -> None:
        while True:
            push = self._line.read()
            if push[0] == b"invalidate" and (push[1] is None or key in push[1]):
                return
