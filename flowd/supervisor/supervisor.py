"""The loop of the daemon: start the roles, restart what dies, stop everything in order.

One thread, no asyncio, no Redis client. Signal handlers only wake the loop; every decision is made
in `_step`, which looks at all posts and at the clock. It may run at any time and any number of
times: it does what is due, and nothing twice.

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
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

from flowd.errors import CrashLoop
from flowd.log import get_logger
from flowd.supervisor.child import STOP_SIGNALS, Child, Kind, Role, describe_exit
from flowd.supervisor.control import ControlServer
from flowd.supervisor.post import Post, State

log = get_logger(__name__)

SCHEDULER_STOP_S = 5.0
SERVER_STOP_S = 20.0
RECOVER_LIMIT_S = 10.0
RECOVERIES_AT_ONCE = 4
# After a second signal nothing may take longer than this; three such waits are under two seconds.
QUICK_STOP_S = 0.6
# How often a server is asked whether it is ready.
READY_POLL_S = 0.01
# A fork fails when the machine is out of memory or processes: another try costs little.
FORK_RETRY_S = 1.0
_STOP_ORDER = (
    (Kind.API, Kind.WORKER),
    (Kind.RECOVER,),
    (Kind.SCHEDULER,),
    (Kind.SERVER,),
)


class Supervisor:
    """Keeps the roles running until a signal asks for the end.

    `prepare` is called once, after the server was forked and before anything else is: it loads
    what the children share. `recover(pid, cause, is_blamed)` runs in a short-lived child for each
    worker that died; one killed for taking too long to stop is not to blame. `close_listener` gives
    up the API's socket: at the stop, and in children that do not serve. `announce` is called once,
    when the API and a worker are ready. `describe` adds to what `flowd status` is told.
    """

    def __init__(
        self,
        roles: Sequence[Role],
        *,
        data_dir: Path,
        grace_s: float,
        recover: Callable[[int, str, bool], None] = lambda *_: None,
        prepare: Callable[[], None] = lambda: None,
        close_listener: Callable[[], None] = lambda: None,
        announce: Callable[[], None] = lambda: None,
        describe: Callable[[], dict[str, Any]] = dict,
    ) -> None:
        self._posts = [Post(role) for role in roles]
        self._grace_s = grace_s
        self._recover = recover
        self._prepare = prepare
        self._close_listener = close_listener
        self._announce = announce
        self._describe = describe
        self._started_at = time.monotonic()
        self._dead_workers: deque[Callable[[], None]] = deque()
        self._signals: deque[signal.Signals] = deque()
        self._failure: CrashLoop | None = None
        self._is_open = False
        self._is_announced = False
        self._is_stopping = False
        self._is_quick = False
        self._stop_by = 0.0
        self._selector = selectors.DefaultSelector()
        self._wakeup = os.pipe()
        self._control = ControlServer(data_dir, self._selector, self._answer)

    def run(self) -> None:
        """Returns after a clean stop; raises CrashLoop when a role never became ready."""
        with self._catching_signals():
            try:
                for post in self._of(Kind.SERVER):
                    self._start(post)
                self._prepare()
                while not self._is_over():
                    self._step(time.monotonic())
                    self._wait()
            finally:
                self._clean_up()
        log.info("supervisor.stopped")
        if self._failure is not None:
            raise self._failure

    def _of(self, *kinds: Kind) -> list[Post]:
        return [post for post in self._posts if post.role.kind in kinds]

    def _is_over(self) -> bool:
        if not self._is_stopping or self._dead_workers:
            return False
        return not any(post.child for post in self._posts)

    @contextmanager
    def _catching_signals(self) -> Iterator[None]:
        for end in self._wakeup:
            os.set_blocking(end, False)
        self._selector.register(
            self._wakeup[0], selectors.EVENT_READ, lambda: os.read(self._wakeup[0], 512)
        )
        before = {number: signal.signal(number, self._enqueue) for number in STOP_SIGNALS}
        fd_before = signal.set_wakeup_fd(self._wakeup[1], warn_on_full_buffer=False)
        try:
            yield
        finally:
            signal.set_wakeup_fd(fd_before)
            for number, handler in before.items():
                signal.signal(number, handler)
            for end in self._wakeup:
                os.close(end)

    def _enqueue(self, number: int, _frame: object) -> None:
        self._signals.append(signal.Signals(number))

    def _wait(self) -> None:
        for key, _ in self._selector.select(self._timeout_s(time.monotonic())):
            # An event before this one may have closed it: a child's death ends its ready pipe.
            if self._selector.get_map().get(key.fileobj) == key:
                key.data()

    def _timeout_s(self, now: float) -> float | None:
        if self._signals or self._is_over():
            return 0.0
        due = [post.due_at for post in self._posts if post.due_at is not None]
        timeout_s = max(0.0, min(due) - now) if due else None
        if any(post.role.is_ready and post.state is State.STARTING for post in self._posts):
            return READY_POLL_S if timeout_s is None else min(READY_POLL_S, timeout_s)
        return timeout_s

    def _step(self, now: float) -> None:
        while self._signals:
            self._obey(self._signals.popleft(), now)
        for post in self._of(Kind.SERVER):
            if post.state is State.STARTING and post.role.is_ready and post.role.is_ready():
                self._become_ready(post)
        # Before the dead are replaced: somebody else may be free for what they held.
        self._start_recoveries()
        for post in list(self._posts):
            if post.is_due(now):
                self._act(post)
        self._open()
        if self._is_stopping:
            self._stop_next(now)
        elif not self._is_announced and self._is_serving():
            self._is_announced = True
            log.info("supervisor.started", start_s=round(now - self._started_at, 3))
            self._announce()

    def _act(self, post: Post) -> None:
        """The time of the post's state is over."""
        if post.state is State.BACKOFF:
            self._start(post)
        elif post.child:
            event = "child.slow" if post.state is State.STARTING else "child.killed"
            log.warning(event, child=post.role.name, pid=post.child.pid)
            post.due_at = None
            post.child.send(signal.SIGKILL)

    def _open(self) -> None:
        """Start what needs the server, the first time the server is ready."""
        if self._is_open or self._is_stopping:
            return
        if all(post.state is State.RUNNING for post in self._of(Kind.SERVER)):
            self._is_open = True
            for post in self._posts:
                if post.state is State.STOPPED:
                    self._start(post)

    def _is_serving(self) -> bool:
        for kind in (Kind.API, Kind.WORKER):
            posts = self._of(kind)
            if posts and not any(post.state is State.RUNNING for post in posts):
                return False
        return self._is_open

    def _start(self, post: Post) -> None:
        try:
            child = Child(post.role, partial(self._close_in_child, post.role.kind))
        except OSError as error:
            log.error("child.unforked", child=post.role.name, error=str(error))
            post.state, post.due_at = State.BACKOFF, time.monotonic() + FORK_RETRY_S
            return
        post.fill(child, time.monotonic())
        self._selector.register(child.pidfd, selectors.EVENT_READ, partial(self._bury, post))
        self._selector.register(child.ready_fd, selectors.EVENT_READ, partial(self._hear, post))
        log.debug("child.started", child=post.role.name, pid=child.pid)

    def _close_in_child(self, kind: Kind) -> None:
        """Give up what belongs to the parent. Runs in the child, on its copy of this object."""
        # Closing the selector leaves the parent's registrations alone; unregistering would not.
        self._selector.close()
        self._control.close_in_child()
        for end in self._wakeup:
            os.close(end)
        for post in self._posts:
            if post.child:
                post.child.close()
        if kind is not Kind.API:
            self._close_listener()

    def _hear(self, post: Post) -> None:
        assert post.child is not None
        self._selector.unregister(post.child.ready_fd)
        if post.child.take_report():
            self._become_ready(post)

    def _become_ready(self, post: Post) -> None:
        if post.state is State.STARTING and post.child:
            post.become_ready(time.monotonic())
            log.info("child.ready", child=post.role.name, pid=post.child.pid)

    def _bury(self, post: Post) -> None:
        """Reap an ended child and decide what follows."""
        child = post.child
        assert child is not None
        if child.ready_fd in self._selector.get_map():
            self._hear(post)
        self._selector.unregister(child.pidfd)
        code = child.reap()
        post.last_exit = describe_exit(code)
        was_asked = post.state is State.STOPPING
        if post.role.kind is Kind.WORKER and post.ready_at is not None and (code or not was_asked):
            cause = f"{post.role.name} (pid {child.pid}) {post.last_exit}"
            self._dead_workers.append(partial(self._recover, child.pid, cause, not was_asked))
        facts = {"child": post.role.name, "pid": child.pid, "reason": post.last_exit}
        if post.role.kind is Kind.RECOVER:
            self._posts.remove(post)
            if code:
                log.warning("child.died", **facts)
        elif self._is_stopping:
            post.rest()
            log.info("child.ended", **facts)
        else:
            self._replace(post, facts)

    def _replace(self, post: Post, facts: dict[str, Any]) -> None:
        pause_s = post.mourn(time.monotonic(), random.random())
        if pause_s is not None:
            log.warning("child.died", **facts, restart_in_s=round(pause_s, 2))
            return
        tries = post.history.failed_starts
        self._failure = CrashLoop(post.role.name, tries, post.last_exit or "")
        log.error("child.given_up", **facts, tries=tries)
        self._stop(time.monotonic())

    def _start_recoveries(self) -> None:
        now = time.monotonic()
        if self._is_quick and now > self._stop_by:
            # The next start, or the scheduler of another machine, finds what they held.
            self._dead_workers.clear()
        while self._dead_workers and len(self._of(Kind.RECOVER)) < RECOVERIES_AT_ONCE:
            recover = self._dead_workers.popleft()
            post = Post(Role("recover", Kind.RECOVER, partial(_run_to_the_end, recover)))
            self._posts.append(post)
            self._start(post)
            post.due_at = self._stop_by if self._is_quick else now + RECOVER_LIMIT_S
            if post.child is None:
                # It could not be forked; the lease of the dead will run out.
                self._posts.remove(post)

    def _obey(self, number: signal.Signals, now: float) -> None:
        if not self._is_stopping:
            log.info("supervisor.stopping", signal=number.name, grace_s=self._grace_s)
            self._stop(now)
            if number is not signal.SIGQUIT:
                return
        self._stop_quickly(now)

    def _stop(self, now: float) -> None:
        self._is_stopping = True
        self._stop_by = now + self._grace_s
        # New connections are refused from here on rather than left without an answer.
        self._close_listener()
        for post in self._posts:
            if post.state is State.BACKOFF:
                post.rest()

    def _stop_quickly(self, now: float) -> None:
        if self._is_quick:
            return
        self._is_quick = True
        self._stop_by = now + QUICK_STOP_S
        log.warning("supervisor.hurried")
        for post in self._posts:
            if post.child and post.role.kind not in (Kind.SERVER, Kind.RECOVER):
                post.begin_stop(now)
                post.child.send(signal.SIGKILL)
                post.due_at = None
            elif post.due_at is not None:
                post.due_at = min(post.due_at, self._stop_by)

    def _stop_next(self, now: float) -> None:
        """Ask the first group that still lives to end; the next one waits for it."""
        for kinds in _STOP_ORDER:
            posts = [post for post in self._of(*kinds) if post.child]
            for post in posts:
                if post.state is not State.STOPPING and post.role.kind is not Kind.RECOVER:
                    self._ask_to_stop(post, now)
            if posts:
                return

    def _ask_to_stop(self, post: Post, now: float) -> None:
        assert post.child is not None
        limits_s = {Kind.SCHEDULER: SCHEDULER_STOP_S, Kind.SERVER: SERVER_STOP_S}
        limit_s = limits_s.get(post.role.kind, max(0.0, self._stop_by - now))
        post.begin_stop(now + (min(limit_s, QUICK_STOP_S) if self._is_quick else limit_s))
        post.child.send(signal.SIGTERM)

    def _clean_up(self) -> None:
        """Leave nothing behind, whatever brought us here."""
        for post in self._posts:
            if post.child and post.role.kind is not Kind.SERVER:
                post.child.end(patience_s=0.0)
        for post in self._of(Kind.SERVER):
            if post.child:
                post.child.end(patience_s=SERVER_STOP_S)
        self._control.close()
        self._selector.close()

    def _answer(self, request: dict[str, Any]) -> dict[str, Any]:
        if request.get("command") != "status":
            raise ValueError(f"unknown command {request.get('command')!r}; there is 'status'")
        now = time.monotonic()
        return {
            "pid": os.getpid(),
            "state": str(self._state()),
            "uptime_s": round(now - self._started_at, 1),
            **self._describe(),
            "processes": [post.report(now) for post in self._posts],
        }

    def _state(self) -> State:
        if self._is_stopping:
            return State.STOPPING
        return State.RUNNING if self._is_announced else State.STARTING


def _run_to_the_end(action: Callable[[], None], _ready: Callable[[], None]) -> None:
    action()
