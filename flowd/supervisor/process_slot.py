"""A process slot: a role, the child that fills it now, and what became of earlier ones."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from flowd.log import write_plain
from flowd.supervisor.child import Child, Role, RoleKind
from flowd.supervisor.restart_policy import History, after_death
from flowd.supervisor.watch import Watch


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
class ProcessSlot:
    """The place of one process in the crew. Times are monotonic seconds."""

    role: Role
    state: State = State.STOPPED
    child: Child | None = None
    watch: Watch | None = None
    history: History = field(default_factory=History)
    started_at: float = 0.0
    ready_at: float | None = None
    # When this state comes to its end by itself: the next start, or the kill. None is never.
    due_at: float | None = None
    # How long its event loop had stood still when it was given up.
    hung_s: float | None = None
    # The entries whose handlers may have held it up; empty where nobody knows.
    suspects: tuple[str, ...] = ()
    # It came while flowd ran: where it cannot start, flowd goes on without it.
    is_added: bool = False
    # The slot goes with its child: nobody takes the place.
    is_leaving: bool = False
    # It was asked to end, and has all the time it needs.
    is_patient: bool = False
    restarts: int = 0
    last_exit: str | None = None

    def is_due(self, now: float) -> bool:
        return self.due_at is not None and now >= self.due_at

    def fill(self, child: Child, now: float) -> None:
        self.child, self.state = child, State.STARTING
        self.watch = Watch(child.pid, child.vitals, now)
        self.started_at, self.ready_at = now, None
        self.hung_s, self.suspects, self.is_patient = None, (), False
        # Once it has shown that it can start, a slow start waits for something else: Redis, mostly.
        limit_s = None if self.history.was_ever_ready else self.role.start_limit_s
        self.due_at = None if limit_s is None else now + limit_s

    def become_ready(self, now: float) -> None:
        self.state, self.ready_at, self.due_at = State.RUNNING, now, None
        if self.watch:
            self.watch.weigh()
        self.history = replace(self.history, was_ever_ready=True, failed_starts=0)

    def begin_stop(self, kill_at: float | None) -> None:
        """None is to end whenever what it runs has ended."""
        self.state, self.due_at = State.STOPPING, kill_at
        self.is_patient = kill_at is None

    def is_hung(self, hung_after_s: float) -> bool:
        """Whether its loop stands still and nothing was done about it yet; 0 is never."""
        if self.watch is None or not self.role.has_pulse or self.hung_s is not None:
            return False
        if hung_after_s and not self.watch.has_beaten:
            hung_after_s = max(hung_after_s, self.role.start_limit_s or 0)
        return 0 < hung_after_s <= self.watch.silent_s

    def show_stacks(self) -> None:
        """Write to stderr what the child has dumped since the last time, if anything."""
        if self.child and (stacks := self.child.stacks.take()):
            write_plain(f"stacks of {self.role.name} (pid {self.child.pid}):\n{stacks}")

    def rest(self) -> None:
        """Empty, and to stay so."""
        self.child, self.watch, self.state, self.due_at = None, None, State.STOPPED, None

    def forgive(self) -> None:
        """It was given up, and may try again as if for the first time."""
        self.history, self.state = History(), State.STOPPED

    def schedule_restart(self, now: float, jitter: float) -> float | None:
        """The child died unasked: the seconds until the next start, None when there is none."""
        ready_for_s = None if self.ready_at is None else now - self.ready_at
        self.history, pause_s = after_death(
            self.history, ready_for_s=ready_for_s, jitter=jitter, tries_max=self.role.tries_max
        )
        self.child = self.watch = None
        if pause_s is None:
            self.state, self.due_at = State.FATAL, None
        else:
            self.state, self.due_at = State.BACKOFF, now + pause_s
            self.restarts += 1
        return pause_s

    def report(self, now: float, *, is_exact: bool) -> dict[str, Any]:
        """What `flowd status` shows. `is_exact` adds what takes a millisecond to find out."""
        is_worker = self.role.kind is RoleKind.WORKER
        watch = self.watch
        # Nothing was measured before the first look.
        measured = watch if watch and watch.memory_mb else None
        own_mb = watch.own_memory_mb() if watch and is_exact else None
        overdue_s = watch.redis_overdue_s(now) if watch else None
        return {
            "name": self.role.name,
            "role": str(self.role.kind),
            "pid": self.child.pid if self.child else None,
            "state": str(self.state),
            "uptime_s": round(now - self.started_at, 1) if self.child else None,
            "restarts": self.restarts,
            "memory_mb": round(measured.memory_mb, 1) if measured else None,
            "own_memory_mb": round(own_mb, 1) if own_mb is not None else None,
            "cpu_percent": round(measured.cpu_percent, 1) if measured else None,
            "in_flight": watch.in_flight if watch and is_worker else None,
            "done": watch.done if watch and is_worker else None,
            "queues": list(self.role.queues) if is_worker else None,
            "stalled_s": watch.stalled_s if watch and is_worker else None,
            "redis_overdue_s": round(overdue_s, 1) if overdue_s is not None else None,
            "last_exit": self.last_exit,
        }
