"""The end of the daemon: group by group, each within its time, and in a hurry when asked twice."""

from __future__ import annotations

import signal
from typing import Final

from flowd.errors import FlowdError
from flowd.supervisor.child import RoleKind
from flowd.supervisor.crew import Crew
from flowd.supervisor.process_slot import State

SCHEDULER_STOP_S: Final = 5.0
SERVER_STOP_S: Final = 20.0
# After a second signal nothing may take longer than this; three such waits are under two seconds.
QUICK_STOP_S: Final = 0.6
# What is below stays for what is above: the server is the last to go.
_ORDER: Final = (
    (RoleKind.API, RoleKind.WORKER, RoleKind.TRIAL),
    (RoleKind.RECOVER,),
    (RoleKind.SCHEDULER,),
    (RoleKind.SERVER,),
)


class Ending:
    """`begin`, then `go_on` until the crew is empty; `hurry` at any time. Times are monotonic.

    `failure` is why it had to end by itself; None where it was asked to.
    """

    def __init__(self, crew: Crew) -> None:
        self._crew = crew
        self.has_begun = False
        self.is_quick = False
        self.failure: FlowdError | None = None
        # When those who serve and work are killed.
        self.by = 0.0

    def begin(self, now: float, grace_s: float) -> None:
        self.has_begun = True
        self.by = now + grace_s
        for slot in self._crew.slots:
            if slot.state is State.BACKOFF:
                slot.rest()

    def hurry(self, now: float) -> bool:
        """Wait for nobody any more; False when that was asked before."""
        if self.is_quick:
            return False
        self.is_quick = True
        self.by = now + QUICK_STOP_S
        for slot in self._crew.slots:
            if slot.child and slot.role.kind not in (RoleKind.SERVER, RoleKind.RECOVER):
                slot.begin_stop(now)
                slot.child.send(signal.SIGKILL)
                slot.due_at = None
            elif slot.due_at is not None:
                slot.due_at = min(slot.due_at, self.by)
        return True

    def go_on(self, now: float) -> None:
        """Ask the first group that still lives to end; the next one waits for it."""
        limits_s = {RoleKind.SCHEDULER: SCHEDULER_STOP_S, RoleKind.SERVER: SERVER_STOP_S}
        for kinds in _ORDER:
            slots = [slot for slot in self._crew.of(*kinds) if slot.child]
            for slot in slots:
                limit_s = limits_s.get(slot.role.kind, max(0.0, self.by - now))
                if self.is_quick:
                    limit_s = min(limit_s, QUICK_STOP_S)
                if slot.role.kind is not RoleKind.RECOVER:
                    self._crew.ask_to_stop(slot, now + limit_s)
            if slots:
                return
