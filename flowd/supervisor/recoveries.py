"""Release what dead workers held, each in a child: the supervisor itself never speaks to Redis."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from flowd.pulse import Pulse
from flowd.supervisor.child import Role, RoleKind
from flowd.supervisor.crew import Crew
from flowd.supervisor.ending import Ending
from flowd.supervisor.process_slot import ProcessSlot

LIMIT_S: Final = 10.0
AT_ONCE_MAX: Final = 4

# Called with the pid of a dead worker, the cause, whether it is to blame, its suspects and for how
# many seconds it had hung.
Recover = Callable[[int, str, bool, tuple[str, ...], float], None]


class Recoveries:
    """`start` does what is due; it may be called at any time."""

    def __init__(self, recover: Recover, crew: Crew, ending: Ending) -> None:
        self._recover = recover
        self._crew = crew
        self._ending = ending
        self._waiting: deque[Callable[[], None]] = deque()

    def __bool__(self) -> bool:
        """Whether somebody still waits."""
        return bool(self._waiting)

    def add(self, slot: ProcessSlot, pid: int, *, was_asked: bool) -> None:
        """A worker has died; one killed for taking too long to stop is not to blame."""
        cause = f"{slot.role.name} (pid {pid}) {slot.last_exit}"
        hung_s = slot.hung_s or 0.0
        recover = partial(self._recover, pid, cause, not was_asked, slot.suspects, hung_s)
        self._waiting.append(recover)

    def start(self) -> None:
        now = time.monotonic()
        if self._ending.is_quick and now > self._ending.by:
            # The next start, or the scheduler of another machine, finds what they held.
            self._waiting.clear()
        while self._waiting and len(self._crew.of(RoleKind.RECOVER)) < AT_ONCE_MAX:
            recover = self._waiting.popleft()
            slot = self._crew.add(
                Role("recover", RoleKind.RECOVER, partial(_run_to_the_end, recover))
            )
            self._crew.start(slot)
            slot.due_at = self._ending.by if self._ending.is_quick else now + LIMIT_S
            if slot.child is None:
                # It could not be forked; the lease of the dead will run out.
                self._crew.remove(slot)


def _run_to_the_end(action: Callable[[], None], _pulse: Pulse) -> None:
    action()
