"""What the process of a handler writes to stdout and stderr, as its worker hears it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from typing import Final

from flowd.handlers import Context
from flowd.log import write_plain
from flowd.node_log import BytesFeed

_READ_BYTES: Final = 65536
# What is still in the pipes when the process has ended: a pipe holds no more.
_READS_LEFT: Final = 16


class Outputs:
    """Two pipes. What comes is in the log of the node, and on stderr of flowd as it always was."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._loop = asyncio.get_running_loop()
        self._feeds: dict[int, BytesFeed] = {}

    def open(self) -> list[int]:
        """The ends to write to, which the caller closes. Raises OSError."""
        ends: list[int] = []
        try:
            for name in ("stdout", "stderr"):
                ours, theirs = os.pipe()
                ends.append(theirs)
                os.set_blocking(ours, False)
                self._feeds[ours] = BytesFeed(self._feed, name)
                self._loop.add_reader(ours, self._read, ours)
        except OSError:
            for descriptor in ends:
                os.close(descriptor)
            raise
        return ends

    def _feed(self, stream: str, text: str) -> None:
        if (log := self._context.node_log()) is not None:
            text = log.feed(stream, text)
        if text:
            write_plain(text)

    def _read(self, descriptor: int) -> bool:
        """Whether there may be more."""
        try:
            data = os.read(descriptor, _READ_BYTES)
        except BlockingIOError:
            return False
        except OSError:
            data = b""
        if data:
            self._feeds[descriptor].write(data)
        else:
            self._let_go(descriptor)
        return bool(data)

    def _let_go(self, descriptor: int) -> None:
        self._loop.remove_reader(descriptor)
        self._feeds.pop(descriptor).close()
        with contextlib.suppress(OSError):
            os.close(descriptor)

    def close(self) -> None:
        """Take what is left of a process that has ended."""
        for descriptor in list(self._feeds):
            for _ in range(_READS_LEFT):
                if not self._read(descriptor):
                    break
            if descriptor in self._feeds:
                self._let_go(descriptor)
