"""Signs of life: what a role lets its supervisor see, at next to no cost.

The role writes into a page of memory it shares with the supervisor over the fork; the supervisor
reads it without asking anybody. The beat comes from the role's event loop itself: a thread would
beat on while the loop hangs.
"""

from __future__ import annotations

import mmap
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    import asyncio

BEAT_EVERY_S: Final = 0.5

_BEAT, _IN_FLIGHT, _DONE, _STUCK, _INSIDE_MS, _INSIDE_SEQUENCE, _ANSWER_DUE = range(7)


class Vitals:
    """The shared page. Made before the fork; each number is written in one piece."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, mmap.PAGESIZE)).cast("q")

    @property
    def last_beat(self) -> int:
        """Changes with every beat. Monotonic nanoseconds, 0 before the first."""
        return self._numbers[_BEAT]

    @property
    def in_flight(self) -> int:
        return self._numbers[_IN_FLIGHT]

    @property
    def done(self) -> int:
        return self._numbers[_DONE]

    @property
    def stuck(self) -> int:
        """Handlers that run on although nobody waits for them, and that only the end can stop."""
        return self._numbers[_STUCK]

    @property
    def inside(self) -> str | None:
        """The entry whose handler the event loop is inside of, None between two steps."""
        ms = self._numbers[_INSIDE_MS]
        return f"{ms}-{self._numbers[_INSIDE_SEQUENCE]}" if ms else None

    @property
    def answer_due(self) -> int:
        """When Redis has to have answered again, in monotonic nanoseconds; 0 when nobody waits."""
        return self._numbers[_ANSWER_DUE]

    def beat(self) -> None:
        self._numbers[_BEAT] = time.monotonic_ns()

    def note_work(self, in_flight: int, ended: int) -> None:
        """Nodes that run now, and how many more have ended."""
        self._numbers[_IN_FLIGHT] = in_flight
        self._numbers[_DONE] += ended

    def note_stuck(self) -> None:
        self._numbers[_STUCK] += 1

    def expect_answer(self, within_s: float) -> None:
        self._numbers[_ANSWER_DUE] = time.monotonic_ns() + int(within_s * 1e9)

    def enter(self, entry_id: str) -> None:
        ms, _, sequence = entry_id.partition("-")
        self._numbers[_INSIDE_SEQUENCE] = int(sequence)
        self._numbers[_INSIDE_MS] = int(ms)

    def leave(self) -> None:
        self._numbers[_INSIDE_MS] = 0


class Pulse:
    """A role's end: it says once that it is ready, and shows from then on that it lives."""

    def __init__(
        self, on_ready: Callable[[], None] = lambda: None, vitals: Vitals | None = None
    ) -> None:
        self._on_ready = on_ready
        self._vitals = vitals or Vitals()

    def ready(self) -> None:
        """The role does its work from now on. Called once."""
        self._on_ready()

    def beat_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Beat as long as this loop turns."""
        self._vitals.beat()
        loop.call_later(BEAT_EVERY_S, self.beat_on, loop)

    def note_work(self, in_flight: int, ended: int) -> None:
        self._vitals.note_work(in_flight, ended)

    def note_stuck(self) -> None:
        self._vitals.note_stuck()

    def expect_answer(self, within_s: float) -> None:
        """Redis has answered, and should again within this time, or it is said not to."""
        self._vitals.expect_answer(within_s)

    def enter(self, entry_id: str) -> None:
        """The loop goes into a handler, and is not seen again until it comes back by `leave`."""
        self._vitals.enter(entry_id)

    def leave(self) -> None:
        self._vitals.leave()
