"""What the supervisor is to run, and within which limits. A reload brings another one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

from flowd.supervisor.child import Role

# The group of the workers that belong to no other.
WORKERS: Final = "worker"


def group_of(name: str) -> str:
    """That of the worker of this name."""
    return name.rpartition("-")[0]


def _no_worker(name: str) -> Role:
    raise ValueError(f"this flowd has no role for {name}")


@dataclass(frozen=True, slots=True)
class Lineup:
    """A limit of 0 is none."""

    roles: Sequence[Role]
    grace_s: float
    # Makes one more worker, by its name: that of its group, and a number.
    worker: Callable[[str], Role] = field(default=_no_worker)
    # The groups there are, but for that of the workers that are called so.
    groups: Sequence[str] = ()
    # A child whose event loop stands still for this long is killed.
    hung_after_s: float = 0.0
    # A worker that uses this much, or has done this many nodes, makes room for a fresh one.
    memory_max_mb: int = 0
    tasks_max: int = 0
    # Settings a reload found changed that take a restart.
    kept: Sequence[str] = ()
    # Called in a child of its own before a reload takes this lineup up; raises a FlowdError where
    # nobody can work with it. None where nothing is to be tried.
    trial: Callable[[], None] | None = None
    # What changes in the supervisor itself, once it is taken up.
    set_up: Callable[[], None] = field(default=lambda: None)
