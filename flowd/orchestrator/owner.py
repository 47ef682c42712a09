"""Who runs a node: a process named so that no other, before or after it, has the same name."""

from __future__ import annotations

import hashlib
import os
import socket
from dataclasses import dataclass
from pathlib import Path

import orjson


@dataclass(frozen=True, slots=True)
class Owner:
    """A process of a machine: `started_ticks` since boot tells a reused pid from the first."""

    host: str
    boot_id: str
    pid: int
    started_ticks: int

    @classmethod
    def of_this_process(cls) -> Owner:
        return cls(socket.gethostname(), boot_id(), os.getpid(), _started_ticks())

    @classmethod
    def from_json(cls, text: str) -> Owner:
        """Raises ValueError or TypeError when the text is not what `to_json` wrote."""
        return cls(**orjson.loads(text))

    def to_json(self) -> bytes:
        return orjson.dumps(self)

    def consumer(self, name: str, life: int) -> str:
        """The consumer name of this process; `life` counts how often it began anew."""
        identity = f"{self.host} {self.boot_id} {self.pid} {self.started_ticks} {life}"
        return f"{name}-{hashlib.blake2b(identity.encode(), digest_size=5).hexdigest()}"


def boot_id() -> str:
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _started_ticks() -> int:
    """Field 22 of /proc/self/stat (proc(5)), counted behind the name, which may hold anything."""
    return int(Path("/proc/self/stat").read_text().rpartition(")")[2].split()[19])
