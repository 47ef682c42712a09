"""The process groups below this daemon, and their end when the supervisor itself was killed.

A child dies with the supervisor (PR_SET_PDEATHSIG), but what a handler has started does not, and
is nobody's child we know of from then on. So the supervisor writes down the groups there are, in
memory that it shares with the one child that outlives it for a moment, and that child ends them.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import select
import signal
import threading
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, NoReturn

_BYTES: Final = 64 * 1024
_GROUPS_MAX: Final = _BYTES // 8 - 1
# What is being forked just then is not seen at the first look.
_LOOKS: Final = 5
_BETWEEN_LOOKS_S: Final = 0.1


class Groups:
    """Made before the first fork, and written by the supervisor only."""

    def __init__(self) -> None:
        self._numbers = memoryview(mmap.mmap(-1, _BYTES)).cast("q")

    def write(self, groups: Iterable[int]) -> None:
        found = list(groups)[:_GROUPS_MAX]
        for place, group in enumerate(found, start=1):
            self._numbers[place] = group
        self._numbers[0] = len(found)

    def read(self) -> list[int]:
        return self._numbers[1 : 1 + self._numbers[0]].tolist()

    def end_with(self, supervisor: int) -> None:
        """Watch the supervisor in a thread; when it is gone, end every group and this process."""
        watched = os.pidfd_open(supervisor)
        threading.Thread(target=self._end_all_after, args=(watched,), daemon=True).start()

    def _end_all_after(self, watched: int) -> NoReturn:
        try:
            select.select([watched], [], [])
            for _ in range(_LOOKS):
                for group in self.read():
                    with contextlib.suppress(ProcessLookupError, PermissionError):
                        os.killpg(group, signal.SIGKILL)
                time.sleep(_BETWEEN_LOOKS_S)
        finally:
            os._exit(1)


def groups_below(pid: int) -> set[int]:
    """The group of this process, and those its descendants have made for themselves."""
    groups, waiting = {pid}, [pid]
    while waiting:
        for child in _children(waiting.pop()):
            with contextlib.suppress(ProcessLookupError):
                groups.add(os.getpgid(child))
                waiting.append(child)
    return groups


def _children(pid: int) -> list[int]:
    """Of all its threads; what has ended meanwhile has none."""
    with contextlib.suppress(OSError):
        files = Path(f"/proc/{pid}/task").glob("*/children")
        return [int(child) for file in files for child in file.read_text("ascii").split()]
    return []
