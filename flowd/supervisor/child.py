"""Fork one child of the supervisor, and look after its pidfd, its ready pipe and its end."""

from __future__ import annotations

import contextlib
import faulthandler
import multiprocessing
import os
import select
import signal
import sys
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import NoReturn

import setproctitle

from flowd.errors import FlowdError
from flowd.log import get_logger, name_process, reopen_log
from flowd.prctl import end_with_parent
from flowd.pulse import Pulse, Vitals
from flowd.supervisor.groups import Groups
from flowd.supervisor.stacks import StackFile, dump_on_signal

log = get_logger(__name__)

# The supervisor acts on these; a child starts with each at its default.
SIGNALS = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGTTIN,
    signal.SIGTTOU,
)
# Sent to a whole job that writes to its terminal, or reads from it, in the background (tty(4)).
TERMINAL_SIGNALS = (signal.SIGTTIN, signal.SIGTTOU)

# Looked up before any fork: a child's first lines should not load libraries.
_fork = multiprocessing.get_context("fork")


class RoleKind(StrEnum):
    """What a child is for: decides when it starts, when it stops and what its death means."""

    SERVER = "server"
    API = "api"
    SCHEDULER = "scheduler"
    WORKER = "worker"
    RECOVER = "recover"
    TRIAL = "trial"


@dataclass(frozen=True, slots=True)
class Role:
    """One child the supervisor keeps alive. `run` is called in the child with its pulse."""

    name: str
    kind: RoleKind
    run: Callable[[Pulse], None]
    # A role that turns into another program cannot say so: the supervisor asks this instead.
    # It must answer within milliseconds.
    is_ready: Callable[[], bool] | None = None
    # Asked when it has ended unasked: what it says of that itself, empty where it says nothing.
    explain_end: Callable[[], str] | None = None
    # Called at every look while it runs; it must return within milliseconds as well.
    look_after: Callable[[], None] | None = None
    # Its event loop beats; one that stands still for long is hung.
    has_pulse: bool = False
    # None waits as long as the child lives: a server may have much data to read.
    start_limit_s: float | None = None
    tries_max: int = 3
    # What the child gets when the supervisor is gone.
    death_signal: signal.Signals = signal.SIGKILL
    # It outlives the supervisor by a moment instead, to end what the workers had started.
    clears_up: bool = False
    # What a worker reads, in this order.
    queues: Sequence[str] = ()


class Child:
    """A running process, from fork to reap. The descriptors are the parent's, closed by `reap`."""

    def __init__(self, role: Role, groups: Groups, close_in_child: Callable[[], None]) -> None:
        parent = os.getpid()
        self.vitals = Vitals()
        self.stacks = StackFile(role.name)
        self.ready_fd, ready_end = os.pipe()
        os.set_blocking(self.ready_fd, False)
        self._process = _fork.Process(
            target=_live,
            args=(role, parent, self.vitals, self.stacks, ready_end, self.ready_fd),
            kwargs={"groups": groups, "close_in_child": close_in_child},
            name=role.name,
        )
        # A signal between the fork and the child's first lines would run the parent's handler in
        # the child and wake the parent through the pipe they share.
        held = signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        try:
            self._process.start()
        except OSError:
            os.close(self.ready_fd)
            self.stacks.close()
            raise
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, held)
            os.close(ready_end)
        assert self._process.pid is not None
        self.pid = self._process.pid
        self.pidfd = os.pidfd_open(self.pid)

    def take_report(self) -> bool:
        """Whether the child is ready; asked once, when its pipe first has something."""
        try:
            return os.read(self.ready_fd, 1) != b""
        except BlockingIOError:
            return False

    def send(self, number: signal.Signals) -> None:
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(self.pidfd, number)

    def close(self) -> None:
        """Give the parent's descriptors back; also the first thing a sibling's child does."""
        os.close(self.pidfd)
        os.close(self.ready_fd)
        self.stacks.close()

    def end(self, patience_s: float) -> None:
        """SIGTERM, then SIGKILL when it is still there after `patience_s`; then reap it."""
        self.send(signal.SIGTERM)
        if not select.select([self.pidfd], [], [], patience_s)[0]:
            self.send(signal.SIGKILL)
        self.reap()

    def reap(self) -> int:
        """The exit code of a child that has ended; negative is the signal that killed it."""
        # What its handlers started lives in the child's process group and must not outlive it.
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self._process.join()
        code = self._process.exitcode
        self._process.close()
        self.close()
        return -signal.SIGKILL if code is None else code


def orphans(known: Collection[int]) -> list[int]:
    """The children of this process that are not among the known pids.

    Handlers may start what leaves the process group of its worker: a daemon, a session of its own.
    """
    try:
        ours = Path(f"/proc/self/task/{os.getpid()}/children").read_text(encoding="utf-8").split()
    except OSError:
        return []
    return [pid for pid in map(int, ours) if pid not in known]


def end_orphans(known: Collection[int]) -> None:
    """Kill what the dead left behind; `reap_orphans` takes note of its end."""
    for pid in orphans(known):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def reap_orphans(known: Collection[int]) -> None:
    for pid in orphans(known):
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)


def describe_exit(code: int) -> str:
    """`was killed by SIGKILL`, `ended with exit code 1`: continues a sentence about a process."""
    if code >= 0:
        return f"ended with exit code {code}"
    try:
        return f"was killed by {signal.Signals(-code).name}"
    except ValueError:
        return f"was killed by signal {-code}"


def _live(
    role: Role,
    parent: int,
    vitals: Vitals,
    stacks: StackFile,
    ready_end: int,
    ready_fd: int,
    *,
    groups: Groups,
    close_in_child: Callable[[], None],
) -> NoReturn:
    """The whole life of a child. Leaves by `_exit`: a stuck thread must not keep it."""
    code = 1
    try:
        _become_child(role, parent, stacks.descriptor)
        os.close(ready_fd)
        close_in_child()
        if role.clears_up:
            groups.end_with(parent)
        role.run(Pulse(lambda: _report_ready(ready_end), vitals))
        code = 0
    except FlowdError as error:
        log.error("role.failed", error=str(error))
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException as error:  # noqa: BLE001 - the outermost line of a process
        log.error("role.failed", error=error)
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code)


def _become_child(role: Role, parent: int, stacks_fd: int) -> None:
    signal.set_wakeup_fd(-1)
    faulthandler.unregister(signal.SIGUSR2)
    for number in SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    # A child is always in the background: it would be stopped, and the whole job with it.
    for number in TERMINAL_SIGNALS:
        signal.signal(number, signal.SIG_IGN)
    # By number: `sys.stderr` is None when we were started without one.
    faulthandler.enable(2)
    answer_signals(stacks_fd)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, SIGNALS)
    # Ctrl-C reaches the whole foreground group; only the supervisor decides who stops when.
    os.setpgid(0, 0)
    end_with_parent(None if role.clears_up else role.death_signal)
    # The parent may have died before the line above: nobody would ever tell us.
    if os.getppid() != parent:
        os._exit(1)
    name_process(role.name)
    setproctitle.setproctitle(f"flowd: {role.name}")


def answer_signals(stacks_fd: int = 2) -> None:
    """What every role does about a signal, whoever started it: USR1 and USR2."""
    signal.signal(signal.SIGUSR1, lambda *_: reopen_log())
    dump_on_signal(stacks_fd)


def _report_ready(ready_end: int) -> None:
    with contextlib.suppress(OSError):
        os.write(ready_end, b"1")
        os.close(ready_end)
