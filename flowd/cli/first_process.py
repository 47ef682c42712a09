"""Be the first process of a container, and have the command run below it.

The kernel gives the first process what no other one has: signals without a handler do not reach it,
and whatever loses its parent becomes its child. So it passes signals on and reaps, and nothing
else; it ends as the command does, and takes everything with it.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import NoReturn

# The kernel's own business, of one process alone.
_NOT_PASSED_ON = {
    signal.SIGCHLD,
    signal.SIGSEGV,
    signal.SIGBUS,
    signal.SIGFPE,
    signal.SIGILL,
    signal.SIGABRT,
    signal.SIGTRAP,
    signal.SIGSYS,
}


def leave_first_place() -> None:
    """Return in a child, which goes on. The first process never returns from here."""
    watched = signal.valid_signals() - _NOT_PASSED_ON | {signal.SIGCHLD}
    before = signal.pthread_sigmask(signal.SIG_BLOCK, watched)
    child = os.fork()
    if child == 0:
        _lead_the_terminal()
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
        return
    _pass_on(child, watched)


def _lead_the_terminal() -> None:
    """Ctrl-C on a terminal is sent to a whole group: it comes once, not once more by us."""
    os.setpgid(0, 0)
    with contextlib.suppress(OSError):
        # In the background yet: it would be stopped for it (tcsetpgrp(3)), were it not blocked.
        os.tcsetpgrp(0, os.getpid())


def _pass_on(child: int, watched: set[signal.Signals]) -> NoReturn:
    while True:
        number = signal.sigwait(watched)
        if number != signal.SIGCHLD:
            with contextlib.suppress(ProcessLookupError):
                os.kill(child, number)
            continue
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                if ended[0] == child:
                    code = os.waitstatus_to_exitcode(ended[1])
                    os._exit(code if code >= 0 else 128 - code)
