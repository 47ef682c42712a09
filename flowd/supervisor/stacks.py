"""Stack dumps on SIGUSR2, written by the signal handler itself: also while Python hangs.

A child dumps into memory it shares with the supervisor, which passes the text on in one piece:
several processes that dump to one stderr at once write through each other.
"""

from __future__ import annotations

import contextlib
import faulthandler
import os
import signal
import stat

# How long a child that was asked for its stacks is given to write them.
DUMP_S = 0.5

_BYTES_MAX = 1024 * 1024


class StackFile:
    """Made before the fork; the child writes at the place in the file that both share."""

    def __init__(self, name: str) -> None:
        self.descriptor = os.memfd_create(f"stacks of {name}", os.MFD_CLOEXEC)

    def take(self) -> str:
        """What was written since the last time; empty when the process did not get round to it."""
        text = os.pread(self.descriptor, _BYTES_MAX, 0)
        os.ftruncate(self.descriptor, 0)
        os.lseek(self.descriptor, 0, os.SEEK_SET)
        return text.decode(errors="replace")

    def close(self) -> None:
        os.close(self.descriptor)


def dump_on_signal(descriptor: int = 2, *, chain: bool = False) -> None:
    """Every thread's stack goes there at SIGUSR2. `chain` calls Python's handler after it."""
    with contextlib.suppress(OSError):
        if stat.S_ISFIFO(os.fstat(descriptor).st_mode):
            # Nobody may read the pipe any more, and a handler that blocks would stop the process.
            flags = os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC
            descriptor = os.open(f"/proc/self/fd/{descriptor}", flags)
    faulthandler.register(signal.SIGUSR2, descriptor, all_threads=True, chain=chain)
