"""One post of the daemon: a role, the child that fills it now, and what became of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from flowd.supervisor.child import Child, Role
from flowd.supervisor.restart_policy import History, after_death


class State(StrEnum):
    STARTING = "STARTING"
    RUNNING = "RUNNING"
    # Died; starts again when its pause is over.
    BACKOFF = "BACKOFF"
    # Was asked to end, and is killed when its time is over.
    STOPPING = "STOPPING"
    # Not started yet, or ended as asked.
    STOPPED = "STOPPED"
    # Given up.
    FATAL = "FATAL"


@dataclass(slots=True)
class Post:
    """Lives as long as the daemon. Times are monotonic seconds."""

    role: Role
    state: State = State.STOPPED
    child: Child | None = None
    history: History = field(default_factory=History)
    started_at: float = 0.0
    ready_at: float | None = None
    # When this state comes to its end by itself: the next start, or the kill. None is never.
    due_at: float | None = None
    restarts: int = 0
    last_exit: str | None = None

    def is_due(self, now: float) -> bool:
        return self.due_at is not None and now >= self.due_at

    def fill(self, child: Child, now: float) -> None:
        self.child, self.state = child, State.STARTING
        self.started_at, self.ready_at = now, None
        # Once it has shown that it can start, a slow start waits for something else: Redis, mostly.
        limit_s = None if self.history.was_ever_ready else self.role.start_limit_s
        self.due_at = None if limit_s is None else now + limit_s

    def become_ready(self, now: float) -> None:
        self.state, self.ready_at, self.due_at = State.RUNNING, now, None
        self.history = replace(self.history, was_ever_ready=True, failed_starts=0)

    def begin_stop(self, kill_at: float) -> None:
        self.state, self.due_at = State.STOPPING, kill_at

    def rest(self) -> None:
        """Empty, and to stay so."""
        self.child, self.state, self.due_at = None, State.STOPPED, None

    def mourn(self, now: float, jitter: float) -> float | None:
        """The child died unasked: the seconds until the next start, None when there is none."""
        ready_for_s = None if self.ready_at is None else now - self.ready_at
        self.history, pause_s = after_death(
            self.history, ready_for_s=ready_for_s, jitter=jitter, tries_max=self.role.tries_max
        )
        self.child = None
        if pause_s is None:
            self.state, self.due_at = State.FATAL, None
        else:
            self.state, self.due_at = State.BACKOFF, now + pause_s
            self.restarts += 1
        return pause_s

    def report(self, now: float) -> dict[str, Any]:
        """What `flowd status` shows."""
        return {
            "name": self.role.name,
            "role": str(self.role.kind),
            "pid": self.child.pid if self.child else None,
            "state": str(self.state),
            "uptime_s": round(now - self.started_at, 1) if self.child else None,
            "restarts": self.restarts,
            "last_exit": self.last_exit,
        }
