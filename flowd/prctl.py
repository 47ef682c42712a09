"""What Linux does for a process that asks: prctl(2), of which Python has nothing."""

from __future__ import annotations

import ctypes
import signal
from typing import Final

_PR_SET_PDEATHSIG: Final = 1
_PR_SET_CHILD_SUBREAPER: Final = 36
# Looked up before anybody forks: a child may not load anything.
_prctl = ctypes.CDLL(None, use_errno=True).prctl


def end_with_parent(number: signal.Signals | None = signal.SIGKILL) -> None:
    """Be sent this signal when the thread that forked this process ends; None is never."""
    _prctl(_PR_SET_PDEATHSIG, int(number or 0), 0, 0, 0)


def adopt_orphans() -> None:
    """What a dead child leaves behind becomes ours instead of init's, from now on."""
    _prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
