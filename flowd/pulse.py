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

_BEAT, _IN_FLIGHT, _DONE, _STUCK, _INSIDE_MS, _INSIDE_SEQUENCE, _UNLISTED, _ANSWER_DUE = range(8)
_STALLED_S, _IS_PATIENT, _INSIDE_QUEUE = 8, 9, 10
# The entries that run in threads, three numbers each, up to the end of the numbers.
_THREADS = 11
_NUMBERS_BYTES: Final = 2 * mmap.PAGESIZE
_THREADS_MAX: Final = (_NUMBERS_BYTES // 8 - _THREADS) // 3
_PLACES: Final = range(_THREADS, _THREADS + 3 * _THREADS_MAX, 3)
# Behind them the queues that those were taken from, where that is not the default one.
_QUEUE_BYTES: Final = 128
_QUEUES_MAX: Final = mmap.PAGESIZE // _QUEUE_BYTES
_UNLISTED_QUEUE: Final = -1


class Vitals:
    """The shared pages. Made before the fork; each number is written in one piece."""

    def __init__(self) -> None:
        pages = memoryview(mmap.mmap(-1, _NUMBERS_BYTES + mmap.PAGESIZE))
        self._numbers = pages[:_NUMBERS_BYTES].cast("q")
        self._queue_names = pages[_NUMBERS_BYTES:]
        # Queue -> its place there, from 1; 0 is the default one.
        self._queues = {"": 0}
        self._free_places = list(_PLACES)

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
    def stalled_s(self) -> int:
        """For how long it has asked for no work although it has room; 0 where it does ask."""
        return self._numbers[_STALLED_S]

    def note_stalled(self, for_s: float) -> None:
        self._numbers[_STALLED_S] = int(for_s)

    @property
    def is_patient(self) -> bool:
        """Written by the supervisor: whoever is asked to end may take its time."""
        return bool(self._numbers[_IS_PATIENT])

    def be_patient(self, is_patient: bool) -> None:
        self._numbers[_IS_PATIENT] = is_patient

    @property
    def suspects(self) -> tuple[str, ...]:
        """The names of the entries whose handlers may hold up the event loop; empty where nobody
        knows.

        The one the loop is inside of; between two steps of it, those in threads: a thread that
        keeps Python's lock stops everybody. What waits on the loop holds up nobody.
        """
        numbers = self._numbers
        if ms := numbers[_INSIDE_MS]:
            entries = [(ms, numbers[_INSIDE_SEQUENCE], numbers[_INSIDE_QUEUE])]
        elif numbers[_UNLISTED]:
            return ()
        else:
            entries = [
                (numbers[at], numbers[at + 1], numbers[at + 2]) for at in _PLACES if numbers[at]
            ]
        if any(queue == _UNLISTED_QUEUE for _, _, queue in entries):
            return ()
        return tuple(f"{self._prefix(queue)}{ms}-{sequence}" for ms, sequence, queue in entries)

    def _prefix(self, queue: int) -> str:
        """What stands in front of the id of an entry of the queue that has this place."""
        if not queue:
            return ""
        written = bytes(self._queue_names[(queue - 1) * _QUEUE_BYTES : queue * _QUEUE_BYTES])
        return written.rstrip(b"\0").decode() + "/"

    def _place_of_queue(self, queue: str) -> int:
        """Written down where it is new."""
        place = self._queues.get(queue)
        if place is None:
            place, written = len(self._queues), queue.encode()
            if place > _QUEUES_MAX or len(written) > _QUEUE_BYTES:
                return _UNLISTED_QUEUE
            start = (place - 1) * _QUEUE_BYTES
            self._queue_names[start : start + len(written)] = written
            self._queues[queue] = place
        return place

    def _note_entry(self, name: str, ms_at: int, sequence_at: int, queue_at: int) -> None:
        place = 0
        if "/" in name:
            queue, _, name = name.rpartition("/")
            place = self._place_of_queue(queue)
        ms, _, sequence = name.partition("-")
        self._numbers[queue_at] = place
        self._numbers[sequence_at] = int(sequence)
        self._numbers[ms_at] = int(ms)

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

    def enter(self, name: str) -> None:
        self._note_entry(name, _INSIDE_MS, _INSIDE_SEQUENCE, _INSIDE_QUEUE)

    def leave(self) -> None:
        self._numbers[_INSIDE_MS] = 0

    def enter_thread(self, name: str) -> int:
        """Called in the thread; the place to leave."""
        try:
            place = self._free_places.pop()
        except IndexError:
            self._numbers[_UNLISTED] += 1
            return 0
        self._note_entry(name, place, place + 1, place + 2)
        return place

    def leave_thread(self, place: int) -> None:
        if place == 0:
            self._numbers[_UNLISTED] -= 1
            return
        self._numbers[place] = 0
        self._free_places.append(place)


class Pulse:
    """A role's end: it says once that it is ready, and shows from then on that it lives."""

    def __init__(
        self, on_ready: Callable[[], None] = lambda: None, vitals: Vitals | None = None
    ) -> None:
        self._on_ready = on_ready
        self._vitals = vitals or Vitals()
        # The loop goes into the handler of an entry, and is not seen again until it comes back.
        # Said for each node: the very functions of the page.
        self.enter, self.leave = self._vitals.enter, self._vitals.leave

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

    def note_stalled(self, for_s: float) -> None:
        """For how long no work was asked for although there is room; 0 is no time worth a word."""
        self._vitals.note_stalled(for_s)

    @property
    def is_patient(self) -> bool:
        """Whether whoever asks for the end of this role waits for all that runs."""
        return self._vitals.is_patient

    def expect_answer(self, within_s: float) -> None:
        """Redis has answered, and should again within this time, or it is said not to."""
        self._vitals.expect_answer(within_s)

    def enter_thread(self, name: str) -> int:
        """A thread goes into a handler; the place it gives back by `leave_thread`."""
        return self._vitals.enter_thread(name)

    def leave_thread(self, place: int) -> None:
        self._vitals.leave_thread(place)
