"""Share the calls under way fairly: a receiver that is silent must not keep those of the others."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Final

PER_RECEIVER_MAX: Final = 8
# What cannot be called now is looked at again within this time, and never all of it at once.
POSTPONED_S_MIN: Final = 0.002
POSTPONED_S_MAX: Final = 30.0
_RECEIVERS_MAX: Final = 10_000
_PLACES_MAX: Final = 50_000


@dataclass(slots=True)
class Receiver:
    """A host and port that callbacks go to.

    `took_s` is how long its last call took; `booked_until_s` how far what was postponed is spread.
    """

    under_way: int = 0
    is_silent: bool = False
    took_s: float = 0.0
    booked_until_s: float = 0.0

    @property
    def calls_max(self) -> int:
        """One that gave no answer at all is tried by one call at a time until it does."""
        return 1 if self.is_silent else PER_RECEIVER_MAX

    @property
    def is_busy(self) -> bool:
        return self.under_way >= self.calls_max

    def postpone_s(self) -> float:
        """How long until there may be room for one more: each gets a time of its own."""
        now_s = time.monotonic()
        step_s = max(POSTPONED_S_MIN, self.took_s / self.calls_max)
        self.booked_until_s = max(self.booked_until_s, now_s) + step_s
        if self.booked_until_s > now_s + POSTPONED_S_MAX:
            self.booked_until_s = now_s + POSTPONED_S_MAX
            return random.uniform(POSTPONED_S_MAX / 2, POSTPONED_S_MAX)
        return self.booked_until_s - now_s

    @contextmanager
    def calling(self) -> Iterator[None]:
        self.under_way += 1
        began_s = time.monotonic()
        try:
            yield
        finally:
            self.under_way -= 1
            self.took_s = time.monotonic() - began_s


class Receivers:
    """Those that are called now or were silent, and where what is to be told goes."""

    def __init__(self) -> None:
        self._receivers: dict[str, Receiver] = {}
        self._places: dict[str, str] = {}

    def at(self, place: str, subject: str) -> Receiver:
        """The receiver at this host and port, which what is told of this subject goes to."""
        if len(self._places) >= _PLACES_MAX:
            self._places.clear()
        self._places[subject] = place
        if len(self._receivers) >= _RECEIVERS_MAX:
            self._receivers = {
                name: one for name, one in self._receivers.items() if one.under_way > 0
            }
        return self._receivers.setdefault(place, Receiver())

    def known(self, subject: str) -> Receiver | None:
        """The receiver of a subject that was postponed before."""
        return self._receivers.get(self._places.get(subject, ""))

    def settle(self, subject: str) -> None:
        """Forget where it went, and a receiver of which there is nothing to remember."""
        place = self._places.pop(subject, "")
        one = self._receivers.get(place)
        if one is not None and not one.is_silent and one.under_way == 0:
            del self._receivers[place]
