"""One flowd per data directory: a lock on a pid file that is never unlinked."""

from __future__ import annotations

import fcntl
import os
import struct
from pathlib import Path

from flowd.errors import AlreadyRunning, InvalidSettings, Problem, ServerFailed
from flowd.owned_folder import OwnedFolder

PID_FILE = "flowd.pid"

# struct flock on 64-bit Linux: type, whence, start, length, pid.
_FLOCK = "hhqqi"


class DataDirLock:
    """Held from construction to `release`, or to the end of the process however it ends.

    The kernel drops such a lock when *any* descriptor of the file is closed in this process:
    nothing else here may open the pid file. Forked children do not inherit it. The pid inside is
    for people; only the lock decides.
    """

    def __init__(self, data_dir: Path, *, lets_root_in: bool = False) -> None:
        """`lets_root_in` to a folder of another user: it opens nothing there but as OwnedFolder."""
        try:
            with OwnedFolder(data_dir, make=True) as folder:
                if folder.is_anothers and not lets_root_in:
                    raise _anothers(data_dir, folder.owner_id)
                self._fd = folder.open_or_create(PID_FILE, os.O_RDWR)
        except OSError as error:
            message = f"{str(data_dir)!r} cannot be used: {error.strerror}; choose another"
            raise InvalidSettings([Problem("redis.data_dir", "bad_value", message)]) from error
        try:
            fcntl.lockf(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = _holder(self._fd)
            os.close(self._fd)
            raise AlreadyRunning(
                f"flowd already runs in {data_dir} (pid {holder or 'unknown'}); see it with "
                "`flowd status`, or start another one with its own --data-dir and --port"
            ) from error
        os.ftruncate(self._fd, 0)
        self._path = data_dir / PID_FILE
        try:
            os.pwrite(self._fd, f"{os.getpid()}\n".encode(), 0)
        except OSError as error:
            # A full disk, for instance: what comes next would not find room either.
            raise ServerFailed(f"cannot write {self._path}: {error.strerror}") from error

    def is_gone(self) -> bool:
        """Whether somebody has taken the pid file away, and the folder with it as a rule.

        Another flowd could start beside this one then; what else was in the folder is lost.
        """
        try:
            return not os.path.samestat(self._path.lstat(), os.fstat(self._fd))
        except FileNotFoundError:
            return True
        except OSError:
            return False

    def release(self) -> None:
        os.ftruncate(self._fd, 0)
        os.close(self._fd)


def _anothers(data_dir: Path, owner_id: int) -> InvalidSettings:
    """The server keeps its files there by itself, and would follow any link (PostgreSQL refuses a
    data directory of another user too)."""
    message = (
        f"{str(data_dir)!r} belongs to the user {owner_id}, and root would trust what that user "
        "puts there; run flowd as that user, or choose another"
    )
    return InvalidSettings([Problem("redis.data_dir", "bad_value", message)])


def is_held(data_dir: Path) -> bool:
    """Whether another process holds the lock; looks without taking it."""
    try:
        with OwnedFolder(data_dir) as folder:
            fd = folder.open(PID_FILE)
    except OSError:
        return False
    try:
        return _holder(fd) is not None
    finally:
        os.close(fd)


def _holder(fd: int) -> int | None:
    """The pid that holds a lock on this file; 0 when it lives in another pid namespace."""
    asked = struct.pack(_FLOCK, fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0)
    kind, _, _, _, pid = struct.unpack(_FLOCK, fcntl.fcntl(fd, fcntl.F_GETLK, asked))
    return None if kind == fcntl.F_UNLCK else int(pid)
