"""Bind and connect to unix sockets whose folder has a path longer than the kernel allows."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

# sun_path holds 108 bytes with the closing NUL (unix(7)).
_PATH_BYTES_MAX = 107


@cache
def reachable_path(path: Path) -> str:
    """A short enough path of this socket, good in this process and the children it forks.

    A long one goes through a descriptor of its folder, which stays open. The folder must exist.
    """
    if len(os.fsencode(path)) <= _PATH_BYTES_MAX:
        return str(path)
    folder = os.open(path.parent, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    return f"/proc/self/fd/{folder}/{path.name}"
