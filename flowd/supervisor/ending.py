"""The end of the daemon: group by group, each within its time, and in a hurry when asked twice."""

from __future__ import annotations

import signal
from typing import Final

from flowd.errors import FlowdError
from flowd.log import get_logger
from flowd.supervisor.child import RoleKind
from flowd.supervisor.crew import Crew
from flowd.supervisor.process_slot import ProcessSlot, State

log = get_logger(__name__)

SCHEDULER_STOP_S: Final = 5.0
SERVER_STOP_S: Final = 20.0
# After a second signal nothing may take longer than this; three such waits are under two seconds.
QUICK_STOP_S: Final = 0.6
# A start or an end that takes longer says what it waits for, and again each time so many seconds
# have passed.
TELL_AFTER_S: Final = 2.0
TELL_EVERY_S: Final = 5.0
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
        self._tell_at = 0.0

    def begin(self, now: float, grace_s: float) -> None:
        self.has_begun = True
        self.by = now + grace_s
        self._tell_at = now + TELL_AFTER_S
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

    def tell(self, now: float) -> None:
        """Say what it waits for, if that is due. To be called about every second."""
        stopping = [one for one in self._crew.slots if one.child and one.state is State.STOPPING]
        if self.is_quick or now < self._tell_at or not stopping:
            return
        self._tell_at = now + TELL_EVERY_S
        log.info(
            "supervisor.waiting",
            waits_for=", ".join(map(_awaited, stopping)),
            killed_in_s=round(max(0.0, max(one.due_at or now for one in stopping) - now)),
            hint="a second Ctrl-C, or `flowd stop --quick`, waits for nothing",
        )

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


def _awaited(slot: ProcessSlot) -> str:
    """`3 nodes on worker-1`, or the name of what runs none."""
    count = slot.watch.in_flight if slot.watch and slot.role.kind is RoleKind.WORKER else 0
    nodes = f"{count} {'node' if count == 1 else 'nodes'} on " if count else ""
    return f"{nodes}{slot.role.name}"
