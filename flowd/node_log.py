"""What a node says while it runs: the lines of one attempt, on their way to the store.

Whoever speaks need not know for whom: what is printed or logged belongs to the call it is said in.
Of more than is kept both ends stay, and how many lines went between them. Nothing is redacted
before it is taken: most of what a program floods us with is dropped unread.
"""

from __future__ import annotations

import codecs
import os
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable
from contextvars import ContextVar
from typing import Any, Final, NamedTuple, Protocol, TextIO

from flowd.redaction import REDACTOR

# An entry of the store: large enough to be few, small enough to be dropped alone.
ENTRY_BYTES: Final = 4096
# What a line costs beyond its text.
LINE_OVERHEAD: Final = 32
LINE_CHARS_MAX: Final = 8192
# What has no line break is kept until it is so long.
_REST_CHARS_MAX: Final = 65536


class LogPiece(NamedTuple):
    """What is to be added to the log of an attempt: numbered entries, and those that give way.

    `dropped` counts all lines that are gone so far; a number that is left out is where they were.
    """

    execution_id: str
    node_id: str
    attempt: int
    entries: tuple[tuple[int, bytes], ...]
    gone: tuple[int, ...]
    dropped: int
    growth: int
    lines: int


class _Line(NamedTuple):
    at_ms: int
    stream: str
    text: str


class LineSink(Protocol):
    def write(self, stream: str, text: str) -> None:
        """Whole lines."""
        ...

    def feed(self, stream: str, text: str) -> str:
        """As it comes: a line may end later. The lines that have ended."""
        ...


class Speaker(Protocol):
    def node_log(self) -> LineSink | None:
        """Where its lines go; made at the first."""


SPEAKER: Final[ContextVar[Speaker | None]] = ContextVar("speaker", default=None)


def say(stream: str, text: str) -> None:
    """Add whole lines to the log of the node that is being called here, if one is."""
    speaker = SPEAKER.get()
    if speaker is not None and (log := speaker.node_log()) is not None:
        log.write(stream, text)


# A process that a handler forks has nobody who would take its lines.
os.register_at_fork(after_in_child=lambda: SPEAKER.set(None))


class _Tail:
    """The last lines that were said: as many as have so many bytes."""

    def __init__(self, bytes_max: int) -> None:
        self.bytes_max = bytes_max
        self._lines: deque[_Line] = deque()
        self._bytes = 0

    def __len__(self) -> int:
        return len(self._lines)

    def add(self, line: _Line, size: int) -> int:
        """How many gave way to it."""
        self._lines.append(line)
        self._bytes += size
        gone = 0
        while self._bytes > self.bytes_max and len(self._lines) > 1:
            self._bytes -= _size(self._lines.popleft())
            gone += 1
        return gone

    def take(self) -> deque[_Line]:
        lines, self._lines, self._bytes = self._lines, deque(), 0
        return lines


class _StoredTail:
    """What the store has of the tail: number, bytes and lines of each entry."""

    def __init__(self) -> None:
        self._entries: deque[tuple[int, int, int]] = deque()
        self._bytes = 0
        self._gone: list[int] = []

    def add(self, number: int, size: int, lines: int) -> None:
        self._entries.append((number, size, lines))
        self._bytes += size

    def give_way(self, bytes_max: int) -> tuple[int, int]:
        """Let go of the oldest until it has no more than this; how many bytes and lines went."""
        freed = gone = 0
        while self._bytes > bytes_max:
            number, size, lines = self._entries.popleft()
            self._bytes -= size
            self._gone.append(number)
            freed += size
            gone += lines
        return freed, gone

    def take_gone(self) -> tuple[int, ...]:
        gone, self._gone = tuple(self._gone), []
        return gone

    def forget(self, piece: LogPiece) -> None:
        """It was not stored, and what was to give way to it is still there."""
        self._gone = [*piece.gone, *self._gone]
        numbers = {number for number, _ in piece.entries}
        self._entries = deque(one for one in self._entries if one[0] not in numbers)
        self._bytes = sum(size for _, size, _ in self._entries)


class NodeLog:
    """The lines of one attempt. Written from any thread, taken on the loop.

    `on_news` is told of the first line since the last were taken, in the thread that says it.
    """

    def __init__(
        self, name: tuple[str, str, int], bytes_max: int, on_news: Callable[[NodeLog], None]
    ) -> None:
        self._name = name
        self._on_news = on_news
        # What is collected meanwhile may speak in its last moment, in this very thread.
        self._lock = threading.RLock()
        self._head_left = bytes_max // 2
        self._rests: dict[str, str] = {}
        self._head: list[_Line] = []
        self._tail = _Tail(bytes_max - bytes_max // 2)
        self._stored = _StoredTail()
        self._has_gap = False
        self._is_told = False
        self._number = 0
        self._dropped = 0
        self._unsent: LogPiece | None = None
        self.is_closed = False

    def write(self, stream: str, text: str) -> None:
        """Add whole lines."""
        with self._lock:
            self._add_block(stream, text)

    def feed(self, stream: str, text: str) -> str:
        """Add text as it comes: a line may end later. The lines that have ended."""
        with self._lock:
            rest = self._rests.pop(stream, "") + text
            block, line_break, rest = rest.rpartition("\n")
            if line_break:
                self._add_block(stream, block)
            if len(rest) > _REST_CHARS_MAX:
                # What may be the beginning of a secret is kept until the rest of it is there.
                hidden = REDACTOR.text(rest)
                kept = max(len(hidden) - REDACTOR.longest, 0)
                self._add_block(stream, hidden[:kept])
                rest = hidden[kept:]
            if rest:
                self._rests[stream] = rest
            return block + line_break

    def close(self) -> None:
        """Whoever still speaks afterwards is not heard."""
        with self._lock:
            for stream, rest in self._rests.items():
                self._add_block(stream, rest)
            self._rests.clear()
            self.is_closed = True

    def _add_block(self, stream: str, block: str) -> None:
        if self.is_closed:
            return
        at_ms = time.time_ns() // 1_000_000
        if self._head_left <= 0 and len(block) > self._tail.bytes_max:
            # Only its end can stay: the rest is not even split.
            cut = block.find("\n", len(block) - self._tail.bytes_max)
            if cut >= 0:
                self._drop(block.count("\n", 0, cut) + 1)
                block = block[cut + 1 :]
        for text in block.split("\n"):
            self._add(at_ms, stream, text.removesuffix("\r"))
        if not self._is_told:
            self._is_told = True
            self._on_news(self)

    def _add(self, at_ms: int, stream: str, text: str) -> None:
        if len(text) > LINE_CHARS_MAX:
            hidden = REDACTOR.text(text)
            for at in range(0, len(hidden), LINE_CHARS_MAX):
                self._keep(_Line(at_ms, stream, hidden[at : at + LINE_CHARS_MAX]))
        else:
            self._keep(_Line(at_ms, stream, text))

    def _keep(self, line: _Line) -> None:
        size = _size(line)
        if self._head_left > 0:
            self._head_left -= size
            self._head.append(line)
            return
        if gone := self._tail.add(line, size):
            self._drop(gone)

    def _drop(self, lines: int) -> None:
        self._dropped += lines
        self._has_gap = True

    def take(self) -> LogPiece | None:
        """What is to be sent: the piece whose fate is not known, or what came since. None is
        nothing."""
        with self._lock:
            if self._unsent is None:
                self._unsent = self._next_piece()
            return self._unsent

    def _next_piece(self) -> LogPiece | None:
        self._is_told = False
        head, tail = self._head, self._tail.take()
        if not head and not tail:
            return None
        self._head = []
        lines = len(head) + len(tail)
        entries, growth = [], 0
        for entry, _ in _entries(head):
            self._number += 1
            growth += len(entry)
            entries.append((self._number, entry))
        if self._has_gap:
            # A number that is left out says where; nothing of before is the end any more.
            self._number += 1
            self._has_gap = False
            growth -= self._give_way(0)
        for entry, count in _entries(tail):
            self._number += 1
            growth += len(entry)
            entries.append((self._number, entry))
            self._stored.add(self._number, len(entry), count)
        growth -= self._give_way(self._tail.bytes_max + ENTRY_BYTES)
        gone = self._stored.take_gone()
        entries = [one for one in entries if one[0] not in gone]
        return LogPiece(*self._name, tuple(entries), gone, self._dropped, growth, lines)

    def _give_way(self, bytes_max: int) -> int:
        freed, lines = self._stored.give_way(bytes_max)
        self._dropped += lines
        return freed

    def settle(self, *, is_stored: bool) -> int:
        """Of the piece that was taken: what was refused is dropped; how many lines that was."""
        with self._lock:
            piece, self._unsent = self._unsent, None
            if is_stored or piece is None:
                return 0
            self._dropped += piece.lines
            self._stored.forget(piece)
            return piece.lines

    @property
    def has_news(self) -> bool:
        return bool(self._unsent or self._head or len(self._tail))


def _size(line: _Line) -> int:
    text = line.text
    length = len(text) if text.isascii() else len(text.encode("utf-8", "backslashreplace"))
    return length + LINE_OVERHEAD


def _entries(lines: Iterable[_Line]) -> Iterable[tuple[bytes, int]]:
    """Lines as entries of the store, without secrets: `at_ms stream text`; how many each has."""
    some: list[_Line] = []
    size = 0
    for line in lines:
        some.append(line)
        size += _size(line)
        if size >= ENTRY_BYTES:
            yield _entry(some), len(some)
            some, size = [], 0
    if some:
        yield _entry(some), len(some)


def _entry(lines: list[_Line]) -> bytes:
    texts = [line.text for line in lines]
    redacted = REDACTOR.text("\n".join(texts)).split("\n")
    if len(redacted) != len(texts):
        # A secret of several lines: each of them is one as well.
        redacted = [REDACTOR.text(text) for text in texts]
    written = (
        f"{line.at_ms} {line.stream} {text}" for line, text in zip(lines, redacted, strict=True)
    )
    return "\n".join(written).encode("utf-8", "backslashreplace")


class BytesFeed:
    """Feeds what a program writes to one of its streams, whatever bytes these are."""

    def __init__(self, feed: Callable[[str, str], object], stream: str) -> None:
        self._feed = feed
        self._stream = stream
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def write(self, data: bytes) -> None:
        if text := self._decoder.decode(data):
            self._feed(self._stream, text)

    def close(self) -> None:
        if text := self._decoder.decode(b"", final=True):
            self._feed(self._stream, text)


class SpokenStream:
    """In place of `sys.stdout` or `sys.stderr`: what a handler prints is in its node's log too."""

    def __init__(self, stream: TextIO | None, name: str) -> None:
        self._stream = stream
        self._name = name

    def write(self, text: str) -> int:
        if not isinstance(text, str):
            # As any text stream does: click asks so whether one is.
            raise TypeError(f"write() argument must be str, not {type(text).__name__}")
        speaker = SPEAKER.get()
        if speaker is not None:
            log = speaker.node_log()
            if log is not None:
                # In pieces a secret would not be found.
                self._pass_on(REDACTOR.text(log.feed(self._name, text)))
                return len(text)
        self._pass_on(text)
        return len(text)

    def _pass_on(self, text: str) -> None:
        if text and self._stream is not None:
            self._stream.write(text)

    def writelines(self, lines: Iterable[str]) -> None:
        for line in lines:
            self.write(line)

    def flush(self) -> None:
        if self._stream is not None:
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
