"""The loop: starts every process of flowd, watches them, replaces the dead, stops them in order.

One thread, no asyncio, no Redis. Signal handlers only wake the loop; every decision is made in
`_step`, which looks at all slots and at the clock. It may run at any time and any number of times:
it does what is due, and nothing twice.

Start: the embedded server first, then everything else. Stop: the API and the workers together, each
finishing what it has begun within the grace period; then what dead workers held is released; then
the scheduler; the server last.
"""

from __future__ import annotations

import os
import random
import selectors
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowd.errors import CrashLoop, FlowdError, ServerFailed
from flowd.log import get_logger, reopen_log
from flowd.prctl import adopt_orphans
from flowd.supervisor.child import RoleKind
from flowd.supervisor.control import ControlServer
from flowd.supervisor.crew import Crew
from flowd.supervisor.ending import SERVER_STOP_S, TELL_AFTER_S, TELL_EVERY_S, Ending
from flowd.supervisor.lineup import WORKERS, Lineup
from flowd.supervisor.notify import Notifier
from flowd.supervisor.process_slot import ProcessSlot, State
from flowd.supervisor.recoveries import Recover, Recoveries
from flowd.supervisor.recycling import Recycling
from flowd.supervisor.reload import Reload
from flowd.supervisor.roll import Roll
from flowd.supervisor.signal_queue import SignalQueue
from flowd.supervisor.stacks import DUMP_S
from flowd.supervisor.staffing import ROLLING_KINDS, WORKERS_MAX, Staffing
from flowd.supervisor.watch import LOOK_EVERY_S

log = get_logger(__name__)

# How often a server is asked whether it is ready.
READY_POLL_S = 0.01
# While it stops, systemd is told again and again that it takes this much longer.
EXTENSION_S = 15.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Hooks:
    """What the loop asks of the flowd it runs.

    `prepare` is called once, after the server was forked and before anything else is: it loads
    what the children share. `recover` runs in a short-lived child for each worker that died.
    `close_listener` gives up the API's socket: at the stop, and in children that do not serve.
    `announce` is called once, when the API and a worker are ready. `describe` adds to what `flowd
    status` is told. `data_dir_missing` says that the data directory was taken away. `reload` reads
    the settings again and makes of them what is to run now; it raises a FlowdError for settings
    nobody can run with.
    """

    recover: Recover = lambda *_: None
    prepare: Callable[[], None] = lambda: None
    close_listener: Callable[[], None] = lambda: None
    announce: Callable[[], None] = lambda: None
    describe: Callable[[], dict[str, Any]] = dict
    data_dir_missing: Callable[[], bool] = lambda: False
    reload: Callable[[], Lineup] | None = None


@dataclass(slots=True)
class StartUp:
    """How far it has come: `is_open` once the server has been ready."""

    began_at: float = field(default_factory=time.monotonic)
    is_open: bool = False
    is_announced: bool = False
    tell_at: float = 0.0

    def __post_init__(self) -> None:
        self.tell_at = self.began_at + TELL_AFTER_S

    def tell(self, now: float, slots: Iterable[ProcessSlot]) -> None:
        """Say who is not ready yet, if that is due. To be called about every second."""
        starting = [one.role.name for one in slots if one.state is State.STARTING]
        if not self.is_open or now < self.tell_at or not starting:
            return
        self.tell_at = now + TELL_EVERY_S
        waited_s = round(now - self.began_at, 1)
        log.info("supervisor.waiting", waits_for=", ".join(starting), waited_s=waited_s)


class Supervisor:
    """Keeps the lineup running until a signal asks for the end."""

    def __init__(self, lineup: Lineup, *, data_dir: Path, hooks: Hooks) -> None:
        self._hooks = hooks
        self._notifier = Notifier.from_environ()
        self._start_up = StartUp()
        self._look_at = self._start_up.began_at
        self._data_dir = data_dir
        self._selector = selectors.DefaultSelector()
        self._signals = SignalQueue(self._selector)
        self._crew = Crew(
            lineup.roles,
            self._selector,
            close_in_child=self._close_in_child,
            on_end=self._on_exit,
        )
        self._roll = Roll(self._crew)
        self._recycling = Recycling(self._crew, self._roll)
        self._staffing = Staffing(lineup, self._crew, self._roll)
        self._ending = Ending(self._crew)
        self._reload = Reload(
            hooks.reload or (lambda: lineup), self._crew, self._staffing, self._notify_ready
        )
        self._recoveries = Recoveries(hooks.recover, self._crew, self._ending)
        self._control = ControlServer(data_dir, self._selector, self._answer)

    def run(self) -> None:
        """Returns after a clean stop; raises CrashLoop when a role never became ready, and
        ServerFailed when the data directory was taken away."""
        adopt_orphans()
        with self._signals.catching():
            try:
                for slot in self._crew.of(RoleKind.SERVER):
                    self._crew.start(slot)
                self._hooks.prepare()
                while not self._is_over():
                    self._step(time.monotonic())
                    self._wait()
            finally:
                self._crew.end_all(SERVER_STOP_S)
                self._control.close()
                self._selector.close()
        log.info("supervisor.stopped")
        if self._ending.failure is not None:
            raise self._ending.failure

    def _is_over(self) -> bool:
        return self._ending.has_begun and not self._recoveries and self._crew.is_empty()

    def _close_in_child(self, kind: RoleKind) -> None:
        """Give up what belongs to the parent. Runs in the child, on its copy of this object."""
        # Closing the selector leaves the parent's registrations alone; unregistering would not.
        self._selector.close()
        self._control.close_in_child()
        self._signals.close_in_child()
        if kind is not RoleKind.API:
            self._hooks.close_listener()

    # The loop: wait for something, then do what is due.

    def _wait(self) -> None:
        with self._signals.hearing_all():
            events = self._selector.select(self._timeout_s(time.monotonic()))
        for key, _ in events:
            # An event before this one may have closed it: a child's death ends its ready pipe.
            if self._selector.get_map().get(key.fileobj) == key:
                key.data()

    def _timeout_s(self, now: float) -> float:
        if self._signals or self._is_over():
            return 0.0
        due = [slot.due_at for slot in self._crew.slots if slot.due_at is not None]
        if self._crew.stacks_due_at is not None:
            due.append(self._crew.stacks_due_at)
        timeout_s = max(0.0, min([self._look_at, *due]) - now)
        if any(slot.role.is_ready and slot.state is State.STARTING for slot in self._crew.slots):
            return min(READY_POLL_S, timeout_s)
        return timeout_s

    def _step(self, now: float) -> None:
        while self._signals:
            if number := self._signals.take():
                self._obey(number, now)
        for slot in self._crew.of(RoleKind.SERVER):
            if slot.state is State.STARTING and slot.role.is_ready and slot.role.is_ready():
                self._crew.become_ready(slot)
        if now >= self._look_at:
            self._look(now)
        self._crew.show_stacks(now)
        # Before the dead are replaced: somebody else may be free for what they held.
        self._recoveries.start()
        for slot in list(self._crew.slots):
            if slot.is_due(now):
                self._act(slot)
        self._start_waiting()
        if self._ending.has_begun:
            self._ending.go_on(now)
        elif self._start_up.is_open:
            self._roll.go_on(kill_at=now + self._staffing.lineup.grace_s)
            self._report_readiness(now)

    def _act(self, slot: ProcessSlot) -> None:
        """The time of the slot's state is over."""
        if slot.state is State.BACKOFF:
            self._crew.start(slot)
        elif slot.child:
            event = "child.slow" if slot.state is State.STARTING else "child.killed"
            log.warning(event, child=slot.role.name, pid=slot.child.pid)
            slot.show_stacks()
            slot.due_at = None
            slot.child.send(signal.SIGKILL)

    def _start_waiting(self) -> None:
        """Start who has not been started yet, once the server has been ready."""
        if self._ending.has_begun:
            return
        if all(slot.state is State.RUNNING for slot in self._crew.of(RoleKind.SERVER)):
            self._start_up.is_open = True
        if self._start_up.is_open:
            for slot in self._crew.slots:
                if slot.state is State.STOPPED:
                    self._crew.start(slot)

    def _report_readiness(self, now: float) -> None:
        if not self._start_up.is_announced and self._is_serving():
            self._start_up.is_announced = True
            log.info("supervisor.started", start_s=round(now - self._start_up.began_at, 3))
            self._hooks.announce()
            self._notify_ready()
        elif self._reload.is_rolling and self._roll.is_over():
            self._reload.is_rolling = False
            log.info("supervisor.reloaded")
            self._notify_ready()

    def _notify_ready(self) -> None:
        self._notifier.ready(self._summary())

    def _is_serving(self) -> bool:
        for kind in (RoleKind.API, RoleKind.WORKER):
            slots = self._crew.of(kind)
            if slots and not any(slot.state is State.RUNNING for slot in slots):
                return False
        return self._start_up.is_open

    # Watching: who hangs, who has grown too large, and what the machine's own supervisor hears.

    def _look(self, now: float) -> None:
        every_s = self._look_every_s()
        self._look_at = now + every_s
        self._crew.look(now, every_s)
        for slot in self._crew.slots:
            if slot.is_hung(self._staffing.lineup.hung_after_s):
                self._give_up_hung(slot, now)
        if not any(slot.child and slot.hung_s for slot in self._crew.slots):
            self._notifier.watchdog()
        if self._ending.has_begun:
            self._notifier.extend_timeout(EXTENSION_S)
            self._ending.tell(now)
        elif self._hooks.data_dir_missing():
            self._leave(now)
        elif not self._start_up.is_announced:
            self._start_up.tell(now, self._crew.slots)
        else:
            self._notifier.status(self._summary())
            self._recycling.go_on(self._staffing.lineup, now)

    def _leave(self, now: float) -> None:
        """Without its folder nobody reaches Redis or gives orders, and a second flowd may start
        in the same place: better to end and say why, as PostgreSQL does without its pid file."""
        self._ending.failure = ServerFailed(
            f"the data directory {self._data_dir} was deleted or moved while flowd ran; "
            "restore it, or start flowd again to create it"
        )
        log.error("folder.lost", data_dir=str(self._data_dir))
        self._stop(now)

    def _look_every_s(self) -> float:
        pauses_s = [LOOK_EVERY_S]
        if self._staffing.lineup.hung_after_s:
            pauses_s.append(self._staffing.lineup.hung_after_s / 4)
        if self._notifier.watchdog_every_s:
            pauses_s.append(self._notifier.watchdog_every_s)
        return min(pauses_s)

    def _give_up_hung(self, slot: ProcessSlot, now: float) -> None:
        """Its stacks first, then the kill: a stopped process cannot write them."""
        assert slot.child is not None
        assert slot.watch is not None
        slot.hung_s = slot.watch.silent_s
        slot.suspects = slot.watch.suspects
        kill_at = now + DUMP_S
        slot.due_at = kill_at if slot.due_at is None else min(slot.due_at, kill_at)
        log.error(
            "child.hung", child=slot.role.name, pid=slot.child.pid, silent_s=round(slot.hung_s, 1)
        )
        slot.child.send(signal.SIGUSR2)

    def _summary(self) -> str:
        slots = self._crew.staying(RoleKind.SERVER, *ROLLING_KINDS)
        running = sum(slot.state is State.RUNNING for slot in slots)
        return f"{running} of {len(slots)} processes run"

    # A child has ended.

    def _on_exit(self, slot: ProcessSlot, pid: int, code: int) -> None:
        """Decide what follows."""
        was_asked = slot.state is State.STOPPING
        if (
            slot.role.kind is RoleKind.WORKER
            and slot.ready_at is not None
            and (code or not was_asked)
        ):
            self._recoveries.add(slot, pid, was_asked=was_asked)
        facts = {"child": slot.role.name, "pid": pid, "reason": slot.last_exit}
        if slot.role.kind is RoleKind.RECOVER:
            self._crew.remove(slot)
            if code:
                log.warning("child.died", **facts)
        elif self._ending.has_begun:
            slot.rest()
            log.info("child.ended", **facts)
        elif slot.role.kind is RoleKind.TRIAL:
            self._crew.remove(slot)
            self._reload.note_trial_end(slot)
        elif self._roll.has_lost(slot) or slot.is_leaving:
            self._crew.remove(slot)
            log.info("child.ended", **facts)
        else:
            self._replace(slot, facts)

    def _replace(self, slot: ProcessSlot, facts: dict[str, Any]) -> None:
        pause_s = slot.schedule_restart(time.monotonic(), random.random())
        if pause_s is not None:
            log.warning("child.died", **facts, restart_in_s=round(pause_s, 2))
            return
        tries = slot.history.failed_starts
        log.error("child.given_up", **facts, tries=tries)
        if not slot.is_added:
            self._ending.failure = CrashLoop(slot.role.name, tries, slot.last_exit or "")
            self._stop(time.monotonic())

    # Orders: signals from anybody, requests on the control socket.

    def _obey(self, number: signal.Signals, now: float) -> None:
        if number is signal.SIGHUP:
            self._obey_reload()
        elif number is signal.SIGUSR1:
            reopen_log()
            self._crew.forward(number)
        elif number is signal.SIGUSR2:
            # Our own stacks were written by the handler.
            self._crew.dump_stacks(now)
        elif number in (signal.SIGTTIN, signal.SIGTTOU):
            step = 1 if number is signal.SIGTTIN else -1
            if not self._ending.has_begun:
                self._staffing.scale(max(1, len(self._staffing.worker_names()) + step))
        else:
            self._obey_stop(number, now)

    def _obey_stop(self, number: signal.Signals, now: float) -> None:
        if not self._ending.has_begun:
            grace_s = self._staffing.lineup.grace_s
            log.info("supervisor.stopping", signal=number.name, grace_s=grace_s)
            self._stop(now)
            if number is not signal.SIGQUIT:
                return
        self._stop_quickly(now)

    def _obey_reload(self) -> None:
        try:
            self._take_up_settings()
        except FlowdError:
            # Said in the log; whoever sent the signal does not listen.
            return

    def _take_up_settings(self) -> Lineup:
        """Raises FlowdError, and changes nothing, when the new ones are no good."""
        if self._ending.has_begun:
            return self._staffing.lineup
        self._notifier.reloading()
        return self._reload.begin(time.monotonic())

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One request on the control socket. Raises ValueError with what is wrong with it."""
        now = time.monotonic()
        command = request.get("command")
        if command == "status":
            return self._status(now, is_exact=request.get("exact") is True)
        if command == "stop":
            # Unlike a second signal, a second request is no sign of impatience.
            if request.get("quick") or not self._ending.has_begun:
                self._obey_stop(signal.SIGQUIT if request.get("quick") else signal.SIGTERM, now)
            return {"ok": True, "grace_s": self._staffing.lineup.grace_s}
        if self._ending.has_begun:
            raise ValueError("flowd is stopping")
        if command == "reload":
            return {"ok": True, "kept": list(self._take_up_settings().kept)}
        if command == "restart":
            self._staffing.restart(request.get("name"))
        elif command == "scale":
            count = _worker_count(request.get("workers"))
            self._staffing.scale(count, str(request.get("group") or WORKERS))
        else:
            raise ValueError(
                f"unknown command {command!r}; there are status, stop, reload, restart and scale"
            )
        return {"ok": True}

    def _status(self, now: float, *, is_exact: bool) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "state": str(self._state()),
            "uptime_s": round(now - self._start_up.began_at, 1),
            **self._hooks.describe(),
            "reloading": self._reload.is_under_way,
            "rolling": self._roll.names,
            "roll_failure": self._roll.failure,
            "hindrance": self._recycling.hindrance,
            "refused": self._reload.refused,
            "processes": [slot.report(now, is_exact=is_exact) for slot in self._crew.slots],
        }

    def _state(self) -> State:
        if self._ending.has_begun:
            return State.STOPPING
        return State.RUNNING if self._start_up.is_announced else State.STARTING

    def _stop(self, now: float) -> None:
        self._ending.begin(now, self._staffing.lineup.grace_s)
        self._notifier.stopping()
        # New connections are refused from here on rather than left without an answer.
        self._hooks.close_listener()

    def _stop_quickly(self, now: float) -> None:
        if self._ending.hurry(now):
            log.warning("supervisor.stop_forced")


def _worker_count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= WORKERS_MAX:
        return value
    raise ValueError(f"there can be 0 to {WORKERS_MAX} workers, not {value!r}")
