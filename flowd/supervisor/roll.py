"""Replace children one by one, and nobody notices: the new one is ready before the old one goes.

One change at a time, hence never more than one process above the number that was asked for.
A successor that does not become ready ends the roll, and the old child goes on.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from flowd.log import get_logger
from flowd.supervisor.child import Role
from flowd.supervisor.crew import Crew
from flowd.supervisor.process_slot import ProcessSlot, State

log = get_logger(__name__)


class _Change(NamedTuple):
    slot: ProcessSlot
    role: Role
    reason: str
    # Whether the old child has all the time it needs, as long as nobody else waits for his turn.
    is_patient: bool


class Roll:
    """`go_on` does what is due and nothing twice; it may be called at any time."""

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self._waiting: deque[_Change] = deque()
        self._change: _Change | None = None
        self._successor: ProcessSlot | None = None
        # Why the last roll was broken off; None when it was not.
        self.failure: str | None = None

    @property
    def names(self) -> list[str]:
        """Whose turn it is, and who still waits."""
        current = [] if self._change is None else [self._change]
        return [change.role.name for change in [*current, *self._waiting]]

    def is_over(self) -> bool:
        return self._change is None and not self._waiting

    def add(self, slot: ProcessSlot, role: Role, reason: str, *, is_patient: bool = False) -> None:
        """Give this slot a child of that role. A change that waits for the same slot is dropped."""
        if self.is_over():
            self.failure = None
        self._waiting = deque(one for one in self._waiting if one.slot is not slot)
        self._waiting.append(_Change(slot, role, reason, is_patient))

    def go_on(self, kill_at: float) -> None:
        """Take the next step; an old child that is asked to end now has until `kill_at`."""
        if self._change is None:
            self._begin_next()
        elif self._successor and self._successor.state is State.RUNNING:
            slot, is_patient = self._change.slot, self._change.is_patient and not self._waiting
            if slot not in self._crew.slots:
                self._end()
            elif not slot.is_leaving or (slot.is_patient and not is_patient):
                self._crew.dismiss(slot, None if is_patient else kill_at)

    def has_lost(self, slot: ProcessSlot) -> bool:
        """Told of each child that ended; True when the slot is gone and nobody follows it.

        The old child has its successor already. A successor that was not ready yet had nothing to
        follow up: the old child stays, and so do those that waited for their turn.
        """
        change, successor = self._change, self._successor
        if change is None or successor is None or slot not in (change.slot, successor):
            return False
        if slot is change.slot:
            if successor.state is not State.RUNNING:
                # It died too soon: its slot is the successor's now, for better or worse.
                successor.history = slot.history
            return True
        if slot.ready_at is not None or change.slot not in self._crew.slots:
            self._change = self._successor = None
            return False
        self.failure = f"a new {slot.role.name} did not become ready and {slot.last_exit}"
        log.error("roll.failed", child=slot.role.name, reason=slot.last_exit)
        self._change = self._successor = None
        self._waiting.clear()
        return True

    def _begin_next(self) -> None:
        while self._waiting and self._change is None:
            change = self._waiting.popleft()
            if change.slot not in self._crew.slots or change.slot.is_leaving:
                continue
            if change.slot.child is None:
                change.slot.role = change.role
                if change.slot.state is State.FATAL:
                    change.slot.forgive()
                continue
            log.info("roll.began", child=change.role.name, reason=change.reason)
            self._change = change
            successor = self._successor = self._crew.add(change.role, behind=change.slot)
            successor.restarts = change.slot.restarts
            successor.last_exit = f"was replaced: {change.reason}"
            self._crew.start(successor)

    def _end(self) -> None:
        assert self._change is not None
        self._change = self._successor = None
