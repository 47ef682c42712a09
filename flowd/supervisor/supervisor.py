"""The loop: starts every process of flowd, watches them, replaces the dead, stops them in order.

One thread, no asyncio, no Redis. Signal handlers only wake the loop; every decision is made in
`_step`, which looks at all posts and at the clock. It may run at any time and any number of times:
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
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from flowd.errors import CrashLoop, FlowdError, ServerFailed
from flowd.log import get_logger, reopen_log
from flowd.pulse import Pulse
from flowd.supervisor.child import Kind, Role, adopt_orphans
from flowd.supervisor.control import ControlServer
from flowd.supervisor.crew import Crew
from flowd.supervisor.ending import SERVER_STOP_S, Ending
from flowd.supervisor.lineup import Lineup
from flowd.supervisor.notify import Notifier
from flowd.supervisor.post import Post, State
from flowd.supervisor.recycling import Recycling
from flowd.supervisor.roll import Roll
from flowd.supervisor.signal_queue import SignalQueue
from flowd.supervisor.stacks import DUMP_S
from flowd.supervisor.staffing import ROLLING_KINDS, WORKERS_MAX, Staffing
from flowd.supervisor.trial import Trial
from flowd.supervisor.watch import LOOK_EVERY_S

log = get_logger(__name__)

RECOVER_LIMIT_S = 10.0
RECOVERIES_AT_ONCE = 4
# How often a server is asked whether it is ready.
READY_POLL_S = 0.01
# While it stops, systemd is told again and again that it takes this much longer.
EXTENSION_S = 15.0


class Supervisor:
    """Keeps the lineup running until a signal asks for the end.

    `prepare` is called once, after the server was forked and before anything else is: it loads
    what the children share. `recover(pid, cause, is_blamed, suspects, hung_s)` runs in a
    short-lived child for each worker that died; one killed for taking too long to stop is not to
    blame. `close_listener` gives up the API's socket: at the stop, and in children that do not
    serve. `announce` is called once, when the API and a worker are ready. `describe` adds to what
    `flowd status` is told. `is_homeless` says that the data directory was taken away. `reload`
    reads the settings again and makes of them what is to run now; it raises a FlowdError for
    settings nobody can run with.
    """

    def __init__(
        self,
        lineup: Lineup,
        *,
        data_dir: Path,
        recover: Callable[[int, str, bool, tuple[str, ...], float], None] = lambda *_: None,
        prepare: Callable[[], None] = lambda: None,
        close_listener: Callable[[], None] = lambda: None,
        announce: Callable[[], None] = lambda: None,
        describe: Callable[[], dict[str, Any]] = dict,
        is_homeless: Callable[[], bool] = lambda: False,
        reload: Callable[[], Lineup] | None = None,
    ) -> None:
        self._recover = recover
        self._prepare = prepare
        self._close_listener = close_listener
        self._announce = announce
        self._describe = describe
        self._data_dir = data_dir
        self._is_homeless = is_homeless
        self._reload_lineup = reload or (lambda: lineup)
        self._notifier = Notifier.from_environ()
        self._started_at = self._look_at = time.monotonic()
        self._stacks_due_at: float | None = None
        self._dead_workers: deque[Callable[[], None]] = deque()
        self._failure: FlowdError | None = None
        self._is_open = False
        self._is_announced = False
        self._is_reloading = False
        # What was wrong with the settings of the last reload; None where nothing was.
        self._refused: str | None = None
        self._selector = selectors.DefaultSelector()
        self._signals = SignalQueue(self._selector)
        self._crew = Crew(
            lineup.roles,
            self._selector,
            close_in_child=self._close_in_child,
            on_end=self._bury,
        )
        self._roll = Roll(self._crew)
        self._recycling = Recycling(self._crew, self._roll)
        self._staffing = Staffing(lineup, self._crew, self._roll)
        self._trial = Trial(self._crew, take_up=self._take_up, refuse=self._refuse)
        self._ending = Ending(self._crew)
        self._control = ControlServer(data_dir, self._selector, self._answer)

    def run(self) -> None:
        """Returns after a clean stop; raises CrashLoop when a role never became ready, and
        ServerFailed when the data directory was taken away."""
        adopt_orphans()
        with self._signals.catching():
            try:
                for post in self._crew.of(Kind.SERVER):
                    self._crew.start(post)
                self._prepare()
                while not self._is_over():
                    self._step(time.monotonic())
                    self._wait()
            finally:
                self._crew.end_all(SERVER_STOP_S)
                self._control.close()
                self._selector.close()
        log.info("supervisor.stopped")
        if self._failure is not None:
            raise self._failure

    def _is_over(self) -> bool:
        return self._ending.has_begun and not self._dead_workers and self._crew.is_empty()

    def _close_in_child(self, kind: Kind) -> None:
        """Give up what belongs to the parent. Runs in the child, on its copy of this object."""
        # Closing the selector leaves the parent's registrations alone; unregistering would not.
        self._selector.close()
        self._control.close_in_child()
        self._signals.close_in_child()
        if kind is not Kind.API:
            self._close_listener()

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
        due = [post.due_at for post in self._crew.posts if post.due_at is not None]
        if self._stacks_due_at is not None:
            due.append(self._stacks_due_at)
        timeout_s = max(0.0, min([self._look_at, *due]) - now)
        if any(post.role.is_ready and post.state is State.STARTING for post in self._crew.posts):
            return min(READY_POLL_S, timeout_s)
        return timeout_s

    def _step(self, now: float) -> None:
        while self._signals:
            if number := self._signals.take():
                self._obey(number, now)
        for post in self._crew.of(Kind.SERVER):
            if post.state is State.STARTING and post.role.is_ready and post.role.is_ready():
                self._crew.become_ready(post)
        if now >= self._look_at:
            self._look(now)
        if self._stacks_due_at is not None and now >= self._stacks_due_at:
            self._stacks_due_at = None
            for post in self._crew.posts:
                post.show_stacks()
        # Before the dead are replaced: somebody else may be free for what they held.
        self._start_recoveries()
        for post in list(self._crew.posts):
            if post.is_due(now):
                self._act(post)
        self._start_waiting()
        if self._ending.has_begun:
            self._ending.go_on(now)
        elif self._is_open:
            self._roll.go_on(kill_at=now + self._staffing.lineup.grace_s)
            self._report_readiness(now)

    def _act(self, post: Post) -> None:
        """The time of the post's state is over."""
        if post.state is State.BACKOFF:
            self._crew.start(post)
        elif post.child:
            event = "child.slow" if post.state is State.STARTING else "child.killed"
            log.warning(event, child=post.role.name, pid=post.child.pid)
            post.show_stacks()
            post.due_at = None
            post.child.send(signal.SIGKILL)

    def _start_waiting(self) -> None:
        """Start who has not been started yet, once the server has been ready."""
        if self._ending.has_begun:
            return
        if all(post.state is State.RUNNING for post in self._crew.of(Kind.SERVER)):
            self._is_open = True
        if self._is_open:
            for post in self._crew.posts:
                if post.state is State.STOPPED:
                    self._crew.start(post)

    def _report_readiness(self, now: float) -> None:
        if not self._is_announced and self._is_serving():
            self._is_announced = True
            log.info("supervisor.started", start_s=round(now - self._started_at, 3))
            self._announce()
            self._notifier.ready(self._summary())
        elif self._is_reloading and self._roll.is_over():
            self._is_reloading = False
            log.info("supervisor.reloaded")
            self._notifier.ready(self._summary())

    def _is_serving(self) -> bool:
        for kind in (Kind.API, Kind.WORKER):
            posts = self._crew.of(kind)
            if posts and not any(post.state is State.RUNNING for post in posts):
                return False
        return self._is_open

    # Watching: who hangs, who has grown too large, and what the machine's own supervisor hears.

    def _look(self, now: float) -> None:
        every_s = self._look_every_s()
        self._look_at = now + every_s
        self._crew.look(now, every_s)
        for post in self._crew.posts:
            if post.is_hung(self._staffing.lineup.hung_after_s):
                self._give_up_hung(post, now)
        if not any(post.child and post.hung_s for post in self._crew.posts):
            self._notifier.watchdog()
        if self._ending.has_begun:
            self._notifier.extend_timeout(EXTENSION_S)
        elif self._is_homeless():
            self._leave(now)
        elif self._is_announced:
            self._notifier.status(self._summary())
            self._recycling.go_on(self._staffing.lineup, now)

    def _leave(self, now: float) -> None:
        """Without its folder nobody reaches Redis or gives orders, and a second flowd may start
        in the same place: better to end and say why, as PostgreSQL does without its pid file."""
        told = f"the data directory {self._data_dir} was taken away while flowd ran"
        self._failure = ServerFailed(told)
        log.error("folder.lost", data_dir=str(self._data_dir))
        self._stop(now)

    def _look_every_s(self) -> float:
        pauses_s = [LOOK_EVERY_S]
        if self._staffing.lineup.hung_after_s:
            pauses_s.append(self._staffing.lineup.hung_after_s / 4)
        if self._notifier.watchdog_every_s:
            pauses_s.append(self._notifier.watchdog_every_s)
        return min(pauses_s)

    def _give_up_hung(self, post: Post, now: float) -> None:
        """Its stacks first, then the kill: a stopped process cannot write them."""
        assert post.child is not None
        assert post.watch is not None
        post.hung_s = post.watch.silent_s
        post.suspects = post.watch.suspects
        kill_at = now + DUMP_S
        post.due_at = kill_at if post.due_at is None else min(post.due_at, kill_at)
        log.error(
            "child.hung", child=post.role.name, pid=post.child.pid, silent_s=round(post.hung_s, 1)
        )
        post.child.send(signal.SIGUSR2)

    def _summary(self) -> str:
        posts = self._crew.staying(Kind.SERVER, *ROLLING_KINDS)
        running = sum(post.state is State.RUNNING for post in posts)
        return f"{running} of {len(posts)} processes run"

    # A child has ended.

    def _bury(self, post: Post, pid: int, code: int) -> None:
        """Decide what follows."""
        was_asked = post.state is State.STOPPING
        if post.role.kind is Kind.WORKER and post.ready_at is not None and (code or not was_asked):
            cause = f"{post.role.name} (pid {pid}) {post.last_exit}"
            hung_s = post.hung_s or 0.0
            recover = partial(self._recover, pid, cause, not was_asked, post.suspects, hung_s)
            self._dead_workers.append(recover)
        facts = {"child": post.role.name, "pid": pid, "reason": post.last_exit}
        if post.role.kind is Kind.RECOVER:
            self._crew.remove(post)
            if code:
                log.warning("child.died", **facts)
        elif self._ending.has_begun:
            post.rest()
            log.info("child.ended", **facts)
        elif post.role.kind is Kind.TRIAL:
            self._crew.remove(post)
            self._trial.note_end(post)
        elif self._roll.has_lost(post) or post.is_leaving:
            self._crew.remove(post)
            log.info("child.ended", **facts)
        else:
            self._replace(post, facts)

    def _replace(self, post: Post, facts: dict[str, Any]) -> None:
        pause_s = post.mourn(time.monotonic(), random.random())
        if pause_s is not None:
            log.warning("child.died", **facts, restart_in_s=round(pause_s, 2))
            return
        tries = post.history.failed_starts
        log.error("child.given_up", **facts, tries=tries)
        if not post.is_hired:
            self._failure = CrashLoop(post.role.name, tries, post.last_exit or "")
            self._stop(time.monotonic())

    def _start_recoveries(self) -> None:
        now = time.monotonic()
        if self._ending.is_quick and now > self._ending.by:
            # The next start, or the scheduler of another machine, finds what they held.
            self._dead_workers.clear()
        while self._dead_workers and len(self._crew.of(Kind.RECOVER)) < RECOVERIES_AT_ONCE:
            recover = self._dead_workers.popleft()
            post = self._crew.add(Role("recover", Kind.RECOVER, partial(_run_to_the_end, recover)))
            self._crew.start(post)
            post.due_at = self._ending.by if self._ending.is_quick else now + RECOVER_LIMIT_S
            if post.child is None:
                # It could not be forked; the lease of the dead will run out.
                self._crew.remove(post)

    # Orders: signals from anybody, requests on the control socket.

    def _obey(self, number: signal.Signals, now: float) -> None:
        if number is signal.SIGHUP:
            self._obey_reload()
        elif number is signal.SIGUSR1:
            reopen_log()
            self._crew.forward(number)
        elif number is signal.SIGUSR2:
            # Our own stacks were written by the handler.
            self._crew.forward(number)
            self._stacks_due_at = now + DUMP_S
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
            self._reload()
        except FlowdError:
            # Said in the log; whoever sent the signal does not listen.
            return

    def _reload(self) -> Lineup:
        """Take up new settings, at once or after their trial.

        Raises FlowdError, and changes nothing, when they are no good.
        """
        if self._ending.has_begun:
            return self._staffing.lineup
        self._notifier.reloading()
        self._refused = None
        try:
            lineup = self._reload_lineup()
        except FlowdError as error:
            self._refuse(str(error))
            raise
        if lineup.trial:
            self._trial.begin(lineup, time.monotonic())
        else:
            self._take_up(lineup)
        return lineup

    def _take_up(self, lineup: Lineup) -> None:
        self._is_reloading = True
        self._staffing.take_up(lineup)

    def _refuse(self, problems: str) -> None:
        log.error("settings.refused", problems=problems)
        self._refused = problems
        self._notifier.ready(self._summary())

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
            return {"ok": True, "kept": list(self._reload().kept)}
        if command == "restart":
            self._staffing.restart(request.get("name"))
        elif command == "scale":
            self._staffing.scale(_worker_count(request.get("workers")))
        else:
            raise ValueError(
                f"unknown command {command!r}; there are status, stop, reload, restart and scale"
            )
        return {"ok": True}

    def _status(self, now: float, *, is_exact: bool) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "state": str(self._state()),
            "uptime_s": round(now - self._started_at, 1),
            **self._describe(),
            "reloading": self._is_reloading or self._trial.is_under_way,
            "rolling": self._roll.names,
            "roll_failure": self._roll.failure,
            "hindrance": self._recycling.hindrance,
            "refused": self._refused,
            "processes": [post.report(now, is_exact=is_exact) for post in self._crew.posts],
        }

    def _state(self) -> State:
        if self._ending.has_begun:
            return State.STOPPING
        return State.RUNNING if self._is_announced else State.STARTING

    def _stop(self, now: float) -> None:
        self._ending.begin(now, self._staffing.lineup.grace_s)
        self._notifier.stopping()
        # New connections are refused from here on rather than left without an answer.
        self._close_listener()

    def _stop_quickly(self, now: float) -> None:
        if self._ending.hurry(now):
            log.warning("supervisor.hurried")


def _worker_count(value: object) -> int:
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value <= WORKERS_MAX:
        return value
    raise ValueError(f"there can be 0 to {WORKERS_MAX} workers, not {value!r}")


def _run_to_the_end(action: Callable[[], None], _pulse: Pulse) -> None:
    action()
