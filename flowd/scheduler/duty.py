"""What a scheduler does again and again: one class per duty, and nobody else's business."""

from __future__ import annotations

import math
from abc import ABC, abstractmethod


class Duty(ABC):
    """Runs every `every_s` seconds, in its place among the others.

    Every scheduler runs every duty, so whatever one does must be safe to do twice, also at once.
    """

    every_s: float = 0.0
    due_at_s: float = -math.inf

    @abstractmethod
    async def run(self, now_s: float, /) -> float | None:
        """Do a bounded slice of what is due at this monotonic time.

        Returns the seconds until there is more to do, or None for `every_s`.
        """

    def hurry(self) -> None:
        """Be due at once: somebody has seen what this duty mends."""
        self.due_at_s = -math.inf

    def pause(self) -> None:  # noqa: B027
        """Redis was away: what was seen of others before says nothing about them now."""

    async def run_if_due(self, now_s: float) -> None:
        """One that raises is due again at the next tick."""
        if now_s < self.due_at_s:
            return
        self.due_at_s = now_s
        again_s = await self.run(now_s)
        # Unless it was hurried meanwhile.
        if self.due_at_s == now_s:
            self.due_at_s = now_s + (self.every_s if again_s is None else again_s)
