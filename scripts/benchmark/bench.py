"""What every workload is given."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

from scripts.benchmark.figures import Reading
from scripts.benchmark.sizes import Sizes
from scripts.benchmark.stack import NO_PERSISTENCE

# One repetition: its readings by figure.
Repetition = Callable[[], dict[str, Reading]]


@dataclass(frozen=True, slots=True)
class Bench:
    """Files go into `folder`; `durability` is that of every stack but where a workload says so."""

    folder: Path
    sizes: Sizes
    durability: str

    @property
    def durabilities(self) -> tuple[str, ...]:
        """That of the run, and beside a run without persistence the one that loses nothing."""
        if self.durability == NO_PERSISTENCE:
            return (NO_PERSISTENCE, "always")
        return (self.durability,)


# Starts what it needs, warms it up, and ends it when the repetitions are over.
Workload = Callable[[Bench], AbstractContextManager[Repetition]]
