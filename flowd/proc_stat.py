"""Read /proc/<pid>/stat: looked at every second for every process, so without a file object."""

from __future__ import annotations

import os
from typing import Final

# Longer than any line of it.
_BYTES_MAX: Final = 4096


def read_stat(pid: int) -> list[str]:
    """The fields behind the name, which may hold anything: field 3 of proc(5) is the first. Raises
    OSError where there is no such process."""
    file = os.open(f"/proc/{pid}/stat", os.O_RDONLY | os.O_CLOEXEC)
    try:
        text = os.read(file, _BYTES_MAX)
    finally:
        os.close(file)
    return text.decode("utf-8", "replace").rpartition(")")[2].split()
