"""Who runs a node: a process named so that no other, before or after it, has the same name."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass, fields
from functools import cache
from pathlib import Path

import orjson

from flowd.proc_stat import read_stat
from flowd.workflow.ids import DEFAULT_QUEUE
from flowd.workflow.language import LANGUAGE

# Host name, boot and pid name space.
Machine = tuple[str, str, str]


@dataclass(frozen=True, slots=True)
class Owner:
    """A process of a machine: `started_ticks` since boot tells a reused pid from the first.

    `pid_space` tells containers that share a host name from each other; `language` is the version
    of the language of workflows it knows, 0 where it does not say; `queues` are those it reads.
    Of a worker also the `handlers` it knows, None where it does not say, the process that has
    started it, and since when (Unix time in ms) it has been there.
    """

    host: str
    boot_id: str
    pid: int
    started_ticks: int
    pid_space: str = ""
    language: int = 0
    queues: tuple[str, ...] = (DEFAULT_QUEUE,)
    handlers: tuple[str, ...] | None = None
    parent_pid: int = 0
    since_ms: int = 0

    @classmethod
    def of_this_process(cls, queues: tuple[str, ...] = (DEFAULT_QUEUE,)) -> Owner:
        pid = os.getpid()
        return cls(*this_machine()[:2], pid, _started_ticks(pid), _pid_space(), LANGUAGE, queues)

    @classmethod
    def from_json(cls, text: str) -> Owner:
        """Raises ValueError or TypeError when the text is not what `to_json` wrote. What a later
        version says besides is left out.
        """
        said = orjson.loads(text)
        if not isinstance(said, dict):
            raise TypeError(f"{text!r} is no owner")
        known = {one.name for one in fields(cls)}
        for name in ("queues", "handlers"):
            if said.get(name) is not None:
                said[name] = tuple(said[name])
        return cls(**{name: value for name, value in said.items() if name in known})

    def to_json(self) -> bytes:
        return orjson.dumps(self)

    @property
    def machine(self) -> Machine:
        """Equal for processes that can tell of each other whether they live."""
        return self.host, self.boot_id, self.pid_space

    def is_gone(self) -> bool:
        """True when no such process is on this machine; it says nothing of another machine's.

        A process of another user that /proc hides from us is not gone: its lease tells.
        """
        try:
            return _started_ticks(self.pid) != self.started_ticks
        except ProcessLookupError:
            return True
        except FileNotFoundError:
            return not _exists(self.pid)

    def consumer(self, name: str, life: int) -> str:
        """The consumer name of this process; `life` counts how often it began anew."""
        identity = f"{self.host} {self.boot_id} {self.pid} {self.started_ticks} {life}"
        return f"{name}-{hashlib.blake2b(identity.encode(), digest_size=5).hexdigest()}"


def this_machine() -> Machine:
    """The `machine` of this process's owner."""
    return socket.gethostname(), _boot_id(), _pid_space()


@cache
def _boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="utf-8").strip()


@cache
def _pid_space() -> str:
    return str(Path("/proc/self/ns/pid").readlink())


def _started_ticks(pid: int) -> int:
    """Field 22 of /proc/<pid>/stat (proc(5)).

    A zombie has ended: it only waits for its parent to take note.
    """
    fields = read_stat(pid)
    if fields[0] in "ZX":
        raise ProcessLookupError(f"the process {pid} has ended")
    return int(fields[19])


def _exists(pid: int) -> bool:
    """What the kernel knows, also where /proc shows less (`hidepid` in proc(5))."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError, TypeError):
        return False
    except PermissionError:
        return True
    return True
