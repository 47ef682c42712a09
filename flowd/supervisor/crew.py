"""The crew: every slot of the daemon, and the start, the signals and the end of its children."""

from __future__ import annotations

import selectors
import signal
import time
from collections.abc import Callable, Iterable
from functools import partial

from flowd.log import get_logger
from flowd.supervisor.child import Child, Role, RoleKind, describe_exit, end_orphans, reap_orphans
from flowd.supervisor.groups import Groups, groups_below
from flowd.supervisor.process_slot import ProcessSlot, State
from flowd.supervisor.stacks import DUMP_S

log = get_logger(__name__)

# A fork fails when the machine is out of memory or processes: another try costs little.
FORK_RETRY_S = 1.0


class Crew:
    """`on_end(slot, pid, code)` hears of each child that has ended, before its slot is changed.

    `close_in_child` runs in every forked child, on its copy of the supervisor's memory.
    """

    def __init__(
        self,
        roles: Iterable[Role],
        selector: selectors.BaseSelector,
        *,
        close_in_child: Callable[[RoleKind], None],
        on_end: Callable[[ProcessSlot, int, int], None],
    ) -> None:
        self.slots = [ProcessSlot(role) for role in roles]
        self._selector = selector
        self._close_in_child = close_in_child
        self._on_end = on_end
        self._groups = Groups()
        # When the stacks that were asked for are written.
        self.stacks_due_at: float | None = None

    def of(self, *kinds: RoleKind) -> list[ProcessSlot]:
        return [slot for slot in self.slots if slot.role.kind in kinds]

    def staying(self, *kinds: RoleKind) -> list[ProcessSlot]:
        return [slot for slot in self.of(*kinds) if not slot.is_leaving]

    def is_empty(self) -> bool:
        return not any(slot.child for slot in self.slots)

    def add(self, role: Role, *, behind: ProcessSlot | None = None) -> ProcessSlot:
        """A slot without a child, in its place in the list that `flowd status` shows."""
        slot = ProcessSlot(role)
        same_kind = [index for index, one in enumerate(self.slots) if one.role.kind is role.kind]
        index = self.slots.index(behind) if behind else (same_kind or [len(self.slots) - 1])[-1]
        self.slots.insert(index + 1, slot)
        return slot

    def remove(self, slot: ProcessSlot) -> None:
        """Forget a slot that has no child."""
        self.slots.remove(slot)

    def start(self, slot: ProcessSlot) -> None:
        """Fork its child; when that cannot be done it is tried again."""
        try:
            child = Child(slot.role, self._groups, partial(self._leave_to_child, slot.role.kind))
        except OSError as error:
            log.error("child.fork_failed", child=slot.role.name, error=str(error))
            slot.state, slot.due_at = State.BACKOFF, time.monotonic() + FORK_RETRY_S
            return
        slot.fill(child, time.monotonic())
        self._selector.register(child.pidfd, selectors.EVENT_READ, partial(self._reap, slot))
        self._selector.register(child.ready_fd, selectors.EVENT_READ, partial(self._hear, slot))
        self._note_groups()
        log.debug("child.started", child=slot.role.name, pid=child.pid)

    def become_ready(self, slot: ProcessSlot) -> None:
        if slot.state is State.STARTING and slot.child:
            slot.become_ready(time.monotonic())
            log.info("child.ready", child=slot.role.name, pid=slot.child.pid)

    def ask_to_stop(self, slot: ProcessSlot, kill_at: float | None) -> None:
        """SIGTERM now; SIGKILL when it is still there at `kill_at`, never for None. Once, but one
        that had all the time it needs may be given an end after all."""
        is_hurried = slot.is_patient and kill_at is not None
        if slot.child and (slot.state is not State.STOPPING or is_hurried):
            slot.begin_stop(kill_at)
            slot.child.vitals.be_patient(slot.is_patient)
            slot.child.send(signal.SIGTERM)

    def dismiss(self, slot: ProcessSlot, kill_at: float | None) -> None:
        """Let its child finish, and give up the slot."""
        slot.is_leaving = True
        if slot.child:
            self.ask_to_stop(slot, kill_at)
        else:
            self.remove(slot)

    def forward(self, number: signal.Signals) -> None:
        """Pass a signal on to every child that is flowd: the server is another program."""
        for slot in self.slots:
            if slot.child and slot.role.kind is not RoleKind.SERVER:
                slot.child.send(number)

    def dump_stacks(self, now: float) -> None:
        """Have every child that is flowd write its stacks, for `show_stacks`."""
        self.forward(signal.SIGUSR2)
        self.stacks_due_at = now + DUMP_S

    def show_stacks(self, now: float) -> None:
        if self.stacks_due_at is not None and now >= self.stacks_due_at:
            self.stacks_due_at = None
            for slot in self.slots:
                slot.show_stacks()

    def end_all(self, server_patience_s: float) -> None:
        """Leave nothing behind: the server may finish, everybody else is killed."""
        for slot in self.slots:
            if slot.child and slot.role.kind is not RoleKind.SERVER:
                slot.child.end(patience_s=0.0)
        for slot in self.of(RoleKind.SERVER):
            if slot.child:
                slot.child.end(patience_s=server_patience_s)

    def look(self, now: float, every_s: float) -> None:
        """Take note of how each child is; called about `every_s`."""
        for slot in self.slots:
            if slot.watch:
                slot.watch.look(now, every_s)
            if slot.role.look_after and slot.state is State.RUNNING:
                slot.role.look_after()
        reap_orphans(self._pids())
        self._note_groups()

    def _note_groups(self) -> None:
        workers = (slot.child.pid for slot in self.of(RoleKind.WORKER) if slot.child)
        self._groups.write(group for pid in workers for group in groups_below(pid))

    def _pids(self) -> list[int]:
        return [slot.child.pid for slot in self.slots if slot.child]

    def _leave_to_child(self, kind: RoleKind) -> None:
        for slot in self.slots:
            if slot.child:
                slot.child.close()
        self._close_in_child(kind)

    def _hear(self, slot: ProcessSlot) -> None:
        assert slot.child is not None
        self._selector.unregister(slot.child.ready_fd)
        if slot.child.take_report():
            self.become_ready(slot)

    def _reap(self, slot: ProcessSlot) -> None:
        child = slot.child
        assert child is not None
        if child.ready_fd in self._selector.get_map():
            self._hear(slot)
        self._selector.unregister(child.pidfd)
        code = child.reap()
        if slot.role.kind is RoleKind.WORKER:
            end_orphans(self._pids())
        slot.last_exit = describe_exit(code)
        if code and slot.role.explain_end and (reason := slot.role.explain_end()):
            slot.last_exit += f": {reason}"
        if slot.hung_s is not None:
            slot.last_exit = f"was hung for {slot.hung_s:.0f} s and {slot.last_exit}"
        self._on_end(slot, child.pid, code)
