"""What a scheduler does again and again: one class per duty, and nobody else's business."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from typing import ClassVar, Final

from flowd.backoff import pause_after
from flowd.errors import StoreFull, StoreUnavailable

# While it says so, no duty can do anything: all wait, and none is to blame.
REDIS_AWAY: Final = (StoreUnavailable, StoreFull)
BACKOFF_S: Final = 1.0
BACKOFF_S_MAX: Final = 60.0


class DutyFailed(Exception):
    """What a duty needs fails it: no defect. The text says all there is to say."""


def backoff_s(failures: int) -> float:
    """Until something that has failed so often in a row is tried again."""
    return pause_after(failures, first_s=BACKOFF_S, longest_s=BACKOFF_S_MAX)


class Duty(ABC):
    """Runs every `every_s` seconds, together with the others of its lane that are due.

    Every scheduler runs every duty, so whatever one does must be safe to do twice, also at once,
    and to be broken off anywhere. `name` is for logs and people.
    """

    name: ClassVar[str]
    every_s: float = 0.0
    due_at_s: float = -math.inf

    @abstractmethod
    async def run(self, now_s: float, /) -> float | None:
        """Do a bounded slice of what is due at this monotonic time.

        Returns the seconds until there is more to do, or None for `every_s`. Raises StoreError.
        """

    def hurry(self) -> None:
        """Be due at once: somebody has seen what this duty mends."""
        self.due_at_s = -math.inf

    def pause(self) -> None:  # noqa: B027
        """Redis was away: what was seen of others before says nothing about them now."""
