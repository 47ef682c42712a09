"""Where log lines go: stderr, and a file that is rotated by whoever writes to it.

A line is one write. No call waits and none raises: a reader that stopped reading, or a full disk,
costs lines and never the process.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import select
import socket
import stat
import termios
import threading
import time
from collections.abc import Callable
from datetime import datetime
from functools import partial
from pathlib import Path

from flowd.owned_folder import follow_own_links

_FIRST_TIME = re.compile(rb'\{"time": ?"([0-9TZ:.-]+)"')


class _Lines:
    """Whole lines into `put`, which takes as much as there is room for and says how much."""

    def __init__(self, put: Callable[[bytes], int]) -> None:
        self._put = put
        self._is_torn = False

    def write(self, line: bytes) -> bool:
        """Whether the whole line was taken."""
        # The line before this one found room for its beginning only: that stays alone.
        data = b"\n" + line if self._is_torn else line
        try:
            taken = self._put(data)
        except OSError:
            return False
        self._is_torn = taken < len(data)
        return not self._is_torn


class StandardError:
    """Descriptor 2. Once it is open nothing waits for its reader any more."""

    def __init__(self) -> None:
        self.is_terminal = True
        self.is_journal = False
        # The process group the terminal knows us by; children have groups of their own.
        self._job = os.getpgrp()
        # What was opened beside it, to be closed at the next look.
        self._own = contextlib.ExitStack()
        self._lines = _Lines(partial(os.write, 2))

    def open(self) -> None:
        """Find out what it leads to. May be called again."""
        self._own.close()
        self.is_terminal, self.is_journal = _is_terminal(2), _is_journal(2)
        self._lines = _Lines(_never_waiting(2, self._own, self._job))

    def keep(self) -> None:
        """Stay with what it leads to now, whatever descriptor 2 becomes."""
        self._own.close()
        descriptor = os.dup(2)
        self._own.callback(os.close, descriptor)
        self._lines = _Lines(_never_waiting(descriptor, self._own, self._job))

    def write(self, line: bytes) -> bool:
        """Whether the whole line was taken."""
        return self._lines.write(line)


class LogFile:
    """A file any number of processes append to, and any of them rotates.

    Before each line the writer looks whether the file of that name is still the one it has open,
    and whether its time is over. `flowd.log` becomes `flowd.log.1`, that becomes `flowd.log.2` and
    so on up to `keep`. Zero for `max_bytes` or `max_age_s` is no limit.
    """

    def __init__(self, path: Path, *, max_bytes: int, max_age_s: float, keep: int) -> None:
        self._path = follow_own_links(path)
        self._max_bytes = max_bytes or float("inf")
        self._max_age_s = max_age_s or float("inf")
        self._keep = keep
        self._descriptor = -1
        self._identity = (0, 0)
        self._begun_at = 0.0
        self._is_looked_after = threading.Lock()
        self._lines = _Lines(self._put)

    def write(self, line: bytes) -> bool:
        """Whether the whole line was taken."""
        # Another thread that is at it does it for us; a lock of the file knows processes only.
        if self._is_looked_after.acquire(blocking=False):
            try:
                with contextlib.suppress(OSError):
                    self._look_after()
            finally:
                self._is_looked_after.release()
        return self._lines.write(line)

    def reopen(self) -> None:
        """Take up the file of this name as it is now. Raises OSError, and keeps the old one."""
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC
        flags |= os.O_NONBLOCK | os.O_NOCTTY | os.O_NOFOLLOW
        self._path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
        descriptor = os.open(self._path, flags, 0o640)
        found = os.fstat(descriptor)
        self._begun_at = self._time_of_first_line(found)
        if self._descriptor == -1:
            self._descriptor = descriptor
        else:
            # Onto the same number, at once: another thread may be about to write to it.
            os.dup2(descriptor, self._descriptor, inheritable=False)
            os.close(descriptor)
        self._identity = (found.st_dev, found.st_ino)

    def close(self) -> None:
        if self._descriptor != -1:
            os.close(self._descriptor)
            self._descriptor = -1

    def _put(self, data: bytes) -> int:
        return os.write(self._descriptor, data)

    def _look_after(self) -> None:
        if not self._is_current():
            self.reopen()
        elif self._is_due():
            self._rotate()

    def _is_current(self) -> bool:
        try:
            found = self._path.lstat()
        except FileNotFoundError:
            return False
        return (found.st_dev, found.st_ino) == self._identity

    def _is_due(self) -> bool:
        found = os.fstat(self._descriptor)
        if not stat.S_ISREG(found.st_mode) or found.st_size == 0:
            return False
        is_old = time.time() - self._begun_at >= self._max_age_s
        return is_old or found.st_size >= self._max_bytes

    def _rotate(self) -> None:
        # Whoever has the lock rotates; the others go on writing, and follow with their next line.
        fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        try:
            # Somebody may have done it between our look and our lock.
            if self._is_current():
                self._shift()
            self.reopen()
        finally:
            fcntl.lockf(self._descriptor, fcntl.LOCK_UN)

    def _shift(self) -> None:
        """Make the name free. It is the last step: a file of this name is never one to shift."""
        numbered = [self._path.with_name(f"{self._path.name}.{n}") for n in range(self._keep + 1)]
        for number in range(self._keep, 1, -1):
            with contextlib.suppress(FileNotFoundError):
                numbered[number - 1].replace(numbered[number])
        if self._keep:
            self._path.replace(numbered[1])
        else:
            self._path.unlink()

    def _time_of_first_line(self, found: os.stat_result) -> float:
        """When the file was begun, also by an earlier run: no file system tells that reliably."""
        if stat.S_ISREG(found.st_mode) and found.st_size:
            with contextlib.suppress(OSError, ValueError), self._path.open("rb") as file:
                if first := _FIRST_TIME.match(file.read(64)):
                    return datetime.fromisoformat(first[1].decode()).timestamp()
        return time.time()


def _is_terminal(descriptor: int) -> bool:
    try:
        return os.isatty(descriptor)
    except OSError:
        return False


def _is_journal(descriptor: int) -> bool:
    """Whether systemd connected it to the journal, which reads `<N>` at the start of a line.

    The variable is inherited further than the descriptor is, hence the comparison
    (systemd.exec(5), JOURNAL_STREAM).
    """
    try:
        found = os.fstat(descriptor)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def is_kept_quiet(descriptor: int, job: int) -> bool:
    """Whether its terminal lets nobody write who is in the background (`stty tostop`)."""
    try:
        is_in_background = os.tcgetpgrp(descriptor) != job
        return is_in_background and bool(termios.tcgetattr(descriptor)[3] & termios.TOSTOP)
    except (OSError, termios.error):
        return False


def _write_to_terminal(descriptor: int, job: int, data: bytes) -> int:
    if is_kept_quiet(descriptor, job):
        raise BlockingIOError
    return os.write(descriptor, data)


def _never_waiting(descriptor: int, own: contextlib.ExitStack, job: int) -> Callable[[bytes], int]:
    """A write that takes what there is room for; `own` gets what was opened for it.

    O_NONBLOCK set on the inherited descriptor would be shared with whoever started us, so a pipe
    or a terminal is opened anew. A file or a device that is none of these does not make us wait.
    """
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISSOCK(mode):
            connection = own.enter_context(socket.socket(fileno=os.dup(descriptor)))
            return partial(_send_at_once, connection)
        if stat.S_ISFIFO(mode) or os.isatty(descriptor):
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
            anew = os.open(f"/proc/self/fd/{descriptor}", flags)
            own.callback(os.close, anew)
            if os.isatty(anew):
                return partial(_write_to_terminal, anew, job)
            return partial(os.write, anew)
    except OSError:
        # The terminal of another user, most likely: after `sudo -u flowd`, say.
        return partial(_write_if_ready, descriptor)
    return partial(os.write, descriptor)


def _send_at_once(connection: socket.socket, data: bytes) -> int:
    return connection.send(data, socket.MSG_DONTWAIT)


def _write_if_ready(descriptor: int, data: bytes) -> int:
    if not select.select([], [descriptor], [], 0)[1]:
        raise BlockingIOError
    return os.write(descriptor, data)
