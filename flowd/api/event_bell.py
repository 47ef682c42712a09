"""Say that something has happened, however much that was, to those who then ask for what they show.

A look at the newest event every so often costs the server nothing that grows with the load, and
the events themselves are not read.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable
from typing import Final

from flowd.errors import StoreError
from flowd.store.events import Events, Position

LOOK_EVERY_S: Final = 0.25


class Bell:
    """A subscription of one client; its items are where the newest event stands."""

    def __init__(self, events: Events, position: Position, forget: Callable[[Bell], None]) -> None:
        self.position = position
        self.is_over = False
        self.expelled = asyncio.Event()
        self._events = events
        self._forget = forget

    async def read(self, patience_s: float) -> list[Position]:
        """What is new since the last read, as soon as there is something. Empty when nothing came
        in time, or Redis does not answer."""
        end_s = time.monotonic() + patience_s
        while not self.is_over:
            with contextlib.suppress(StoreError):
                newest = await self._events.newest()
                if newest != self.position:
                    self.position = newest
                    return [newest]
            if (left_s := end_s - time.monotonic()) <= 0:
                break
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(LOOK_EVERY_S, left_s)):
                    await self.expelled.wait()
        return []

    def has_waiting(self) -> bool:
        return False

    def expel(self) -> None:
        self.is_over = True
        self.expelled.set()

    def close(self) -> None:
        """No more is wanted. Safe to call twice."""
        self.is_over = True
        self._forget(self)


def format_bell(position: Position) -> bytes:
    return b"id: %b\nevent: bell\ndata: {}\n\n" % position.entry_id.encode()
