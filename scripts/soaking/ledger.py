"""A ledger of every outside call: who started which attempt of which node, when, and how it ended.

It stands for the outside world: what has reached it has happened, whatever becomes of the worker.
A note is a line of JSON on a unix socket, and is in the book before it is answered.
"""

from __future__ import annotations

import json
import socket
import socketserver
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, Self

START, END, CANCELLED = "start", "end", "cancelled"


class Note(NamedTuple):
    """One line of the book. `at_s` is the monotonic clock of this machine."""

    phase: str
    execution_id: str
    node_id: str
    attempt: int
    pid: int
    at_s: float

    @property
    def node(self) -> tuple[str, str]:
        return self.execution_id, self.node_id


class Ledger:
    """From `with` on it answers at `path`; with `book`, every note goes to that file, too."""

    def __init__(self, path: Path, book: Path | None = None) -> None:
        self.path = path
        self._notes: list[Note] = []
        self._starts: Counter[tuple[str, str]] = Counter()
        self._lock = threading.Lock()
        self._book = None if book is None else book.open("a", buffering=1)
        self._server = _Server(str(path), _Conversation)
        self._server.ledger = self
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))

    def note(self, note: Note) -> int:
        """Take it down; how many starts of its node there have been."""
        with self._lock:
            self._notes.append(note)
            if note.phase == START:
                self._starts[note.node] += 1
            if self._book is not None:
                self._book.write(json.dumps(note) + "\n")
            return self._starts[note.node]

    def notes(self, phase: str | None = None, node_id: str | None = None) -> Sequence[Note]:
        """In the order in which they came."""
        with self._lock:
            return [
                note
                for note in self._notes
                if phase in (None, note.phase) and node_id in (None, note.node_id)
            ]

    def duplicates(self) -> int:
        """Starts beyond the first of their node: outside calls made again."""
        with self._lock:
            return sum(self._starts.values()) - len(self._starts)

    def __len__(self) -> int:
        return len(self._notes)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
        if self._book is not None:
            self._book.close()


class _Server(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True
    request_queue_size = 1024
    ledger: Ledger


class _Conversation(socketserver.StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        try:
            for line in self.rfile:
                said = json.loads(line)
                starts = self.server.ledger.note(Note(*said, time.monotonic()))
                self.wfile.write(b"%d\n" % starts)
        except OSError:
            # Whoever called was killed over it.
            return


def read_book(book: Path) -> Iterator[Note]:
    with book.open() as lines:
        for line in lines:
            yield Note(*json.loads(line))


@contextmanager
def conversation(path: str) -> Iterator[Any]:
    """`say(phase, execution_id, node_id, attempt, pid)`: the number of starts of that node."""
    with socket.socket(socket.AF_UNIX) as connection:
        connection.settimeout(30)
        connection.connect(path)
        answers = connection.makefile("rb")

        def say(*said: Any) -> int:
            connection.sendall(json.dumps(said).encode() + b"\n")
            return int(answers.readline())

        yield say
