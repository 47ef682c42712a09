"""Try new settings before anything is changed: a child imports what would run with them.

In a child, because what is imported here would be shared by every child that is forked later; and
nobody waits for it, because an import may take long.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from flowd.errors import FlowdError
from flowd.handlers.limits import IMPORT_LIMIT_S
from flowd.pulse import Pulse
from flowd.supervisor.child import Role, RoleKind
from flowd.supervisor.crew import Crew
from flowd.supervisor.lineup import Lineup
from flowd.supervisor.process_slot import ProcessSlot

_PROBLEM_BYTES_MAX: Final = 64 * 1024


class Trial:
    """One at a time: `begin` gives up the one before, and ends in `take_up` or in `refuse`."""

    def __init__(
        self, crew: Crew, *, take_up: Callable[[Lineup], None], refuse: Callable[[str], None]
    ) -> None:
        self._crew = crew
        self._take_up = take_up
        self._refuse = refuse
        self._current: tuple[ProcessSlot, Lineup, mmap.mmap] | None = None

    @property
    def is_under_way(self) -> bool:
        return self._current is not None

    def begin(self, lineup: Lineup, now: float) -> None:
        if self._current:
            self._crew.dismiss(self._current[0], now)
        # Shared with the child: its last words, or nothing.
        problem = mmap.mmap(-1, _PROBLEM_BYTES_MAX)
        run = partial(_try, lineup, problem)
        slot = self._crew.add(Role("trial", RoleKind.TRIAL, run, start_limit_s=IMPORT_LIMIT_S))
        self._current = slot, lineup, problem

    def note_end(self, slot: ProcessSlot) -> None:
        """Its child has ended; that of a trial that was given up does not matter any more."""
        if self._current is None or self._current[0] is not slot:
            return
        _, lineup, problem = self._current
        self._current = None
        if slot.ready_at is not None:
            self._take_up(lineup)
        else:
            text = problem[:].rstrip(b"\0").decode(errors="replace")
            self._refuse(text or f"the process that tried your handlers {slot.last_exit}")


def _try(lineup: Lineup, problem: mmap.mmap, pulse: Pulse) -> None:
    try:
        if lineup.trial:
            lineup.trial()
    except FlowdError as error:
        text = str(error).encode(errors="replace")[:_PROBLEM_BYTES_MAX]
        problem[: len(text)] = text
        sys.exit(1)
    pulse.ready()
