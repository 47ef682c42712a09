"""A service that knows how many of its calls are under way: what a limit is for."""

from __future__ import annotations

import contextlib
import selectors
import socket
import threading
import time
from collections import Counter
from typing import Final, Self

_ANSWER: Final = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}"


class Metered:
    """`most` are the most calls at once, by path; a caller that is killed calls no more.

    One thread serves all: whoever is gone was gone before the next one called, and is seen first.
    """

    def __init__(self, *, holds_s: float) -> None:
        self.calls: Counter[str] = Counter()
        self.most: Counter[str] = Counter()
        self._holds_s = holds_s
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._under_way: dict[socket.socket, tuple[str, float]] = {}
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._listener.getsockname()[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        self._thread.join()
        for one in list(self._selector.get_map().values()):
            one.fileobj.close()  # type: ignore[union-attr]

    def _serve(self) -> None:
        while not self._is_over.is_set():
            for ready, _ in self._selector.select(0.005):
                if ready.fileobj is self._listener:
                    connection, _ = self._listener.accept()
                    self._selector.register(connection, selectors.EVENT_READ)
                else:
                    self._hear(ready.fileobj)  # type: ignore[arg-type]
            now_s = time.monotonic()
            for connection, (_, until_s) in list(self._under_way.items()):
                if now_s >= until_s:
                    del self._under_way[connection]
                    with contextlib.suppress(OSError):
                        connection.sendall(_ANSWER)

    def _hear(self, connection: socket.socket) -> None:
        data = _read(connection)
        if not data:
            self._forget(connection)
            return
        path = data.split(b" ", 2)[1].partition(b"?")[0].decode()
        for other in list(self._under_way):
            if _is_gone(other):
                self._forget(other)
        self.calls[path] += 1
        self._under_way[connection] = path, time.monotonic() + self._holds_s
        at_once = sum(one == path for one, _ in self._under_way.values())
        self.most[path] = max(at_once, self.most[path])

    def _forget(self, connection: socket.socket) -> None:
        self._under_way.pop(connection, None)
        with contextlib.suppress(KeyError):
            self._selector.unregister(connection)
        connection.close()


def _read(connection: socket.socket) -> bytes:
    """A head, which is small and comes at once; nothing where the caller is gone."""
    try:
        return connection.recv(65_536)
    except OSError:
        return b""


def _is_gone(connection: socket.socket) -> bool:
    try:
        return not connection.recv(1, socket.MSG_PEEK | socket.MSG_DONTWAIT)
    except BlockingIOError:
        return False
    except OSError:
        return True
