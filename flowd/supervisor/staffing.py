"""Change the processes while flowd runs: new settings, replacements, more workers or fewer."""

from __future__ import annotations

import time

from flowd.log import get_logger
from flowd.supervisor.child import Role, RoleKind
from flowd.supervisor.crew import Crew
from flowd.supervisor.lineup import WORKERS, Lineup, group_of
from flowd.supervisor.roll import Roll

log = get_logger(__name__)

WORKERS_MAX = 512
ROLLING_KINDS = (RoleKind.API, RoleKind.SCHEDULER, RoleKind.WORKER)


class Staffing:
    """`lineup` is the latest one. A process that was added waits in the crew to be started."""

    def __init__(self, lineup: Lineup, crew: Crew, roll: Roll) -> None:
        self.lineup = lineup
        self._crew = crew
        self._roll = roll

    def take_up(self, lineup: Lineup) -> None:
        """Replace every process by its successor in it; add missing ones, dismiss extras."""
        self.lineup = lineup
        lineup.set_up()
        roles = {role.name: role for role in lineup.roles}
        kill_at = time.monotonic() + lineup.grace_s
        slots = self._crew.staying(*ROLLING_KINDS)
        for slot in slots:
            if slot.role.name in roles:
                self._roll.add(slot, roles[slot.role.name], "reload")
            else:
                self._crew.dismiss(slot, kill_at)
        names = {slot.role.name for slot in slots}
        for role in lineup.roles:
            if role.kind in ROLLING_KINDS and role.name not in names:
                self._add(role)

    def restart(self, name: str | None) -> None:
        """Roll one child, or all, over to a fresh process with the settings there are."""
        slots = self._crew.staying(*ROLLING_KINDS)
        chosen = [slot for slot in slots if name in (None, slot.role.name)]
        if not chosen:
            names = ", ".join(slot.role.name for slot in slots)
            raise ValueError(f"there is no process {name!r} to restart; there are {names}")
        for slot in chosen:
            self._roll.add(slot, slot.role, "restart")

    def scale(self, count: int, group: str = WORKERS) -> None:
        """Have `count` workers of this group: the highest numbers go, the lowest free ones come."""
        if group not in (WORKERS, *self.lineup.groups):
            groups = ", ".join((WORKERS, *self.lineup.groups))
            raise ValueError(f"there is no group {group!r} of workers; there are {groups}")
        names = self.worker_names(group)
        leaving = set(names[count:])
        kill_at = time.monotonic() + self.lineup.grace_s
        for slot in self._crew.staying(RoleKind.WORKER):
            if slot.role.name in leaving:
                self._crew.dismiss(slot, kill_at)
        free = (f"{group}-{number}" for number in range(1, WORKERS_MAX + 1))
        for _ in range(count - len(names)):
            self._add(self.lineup.worker(next(name for name in free if name not in names)))
        log.info("supervisor.scaled", workers=count, group=group)

    def worker_names(self, group: str = WORKERS) -> list[str]:
        """Each of a group once, also while a successor stands beside the one it follows."""
        workers = (slot.role.name for slot in self._crew.staying(RoleKind.WORKER))
        names = {name for name in workers if group_of(name) == group}
        return sorted(names, key=lambda name: (len(name), name))

    def _add(self, role: Role) -> None:
        self._crew.add(role).is_added = True
