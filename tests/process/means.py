"""Means of the machine that some faults take: a wrong clock, a network, little memory or disk.

Where the machine lacks one, the test is skipped, and says what is missing.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import struct
import subprocess
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.daemon import PATIENCE_S

_SHIM = Path(__file__).with_name("clock_shim.c")


def _lacking(what: str, ended: subprocess.CompletedProcess[str] | None = None) -> NoReturn:
    said = f": {ended.stderr.strip()}" if ended else ""
    pytest.skip(f"NOT TESTED, this machine lacks the means: {what}{said}")


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


class Clock:
    """A wall clock that jumps, for every process that has `environ`."""

    def __init__(self, folder: Path) -> None:
        compiler = shutil.which("gcc") or shutil.which("cc")
        if compiler is None:
            _lacking("a C compiler, for the shim in front of the clock")
        self._path = folder / "clock"
        self.jump_to(0)
        shim = folder / "clock_shim.so"
        ended = _run(compiler, "-shared", "-fPIC", "-O1", "-o", str(shim), str(_SHIM), "-ldl")
        if ended.returncode != 0:
            _lacking("a C compiler that works", ended)
        self.environ = {"LD_PRELOAD": str(shim), "FLOWD_TEST_CLOCK": str(self._path)}

    def jump_to(self, hours: float) -> None:
        """The clock is this far from the true time from now on."""
        # In place: the file is mapped into the processes.
        descriptor = os.open(self._path, os.O_WRONLY | os.O_CREAT)
        try:
            os.write(descriptor, struct.pack("d", 3600 * hours))
        finally:
            os.close(descriptor)


class Network:
    """Two hosts with a cable between them, neither of them in the network of the machine."""

    address, far_address = "10.213.7.1", "10.213.7.2"

    def __init__(self) -> None:
        self.home, self.far = f"flowd-home-{os.getpid()}", f"flowd-far-{os.getpid()}"

    def __enter__(self) -> Network:
        if os.geteuid() != 0 or shutil.which("ip") is None:
            _lacking("root and ip, for network namespaces")
        peer = ("peer", "name", "cable", "netns", self.far)
        steps = (
            ("netns", "add", self.home),
            ("netns", "add", self.far),
            ("link", "add", "cable", "netns", self.home, "type", "veth", *peer),
            ("-n", self.home, "addr", "add", f"{self.address}/24", "dev", "cable"),
            ("-n", self.far, "addr", "add", f"{self.far_address}/24", "dev", "cable"),
            ("-n", self.home, "link", "set", "lo", "up"),
            ("-n", self.far, "link", "set", "lo", "up"),
            ("-n", self.home, "link", "set", "cable", "up"),
            ("-n", self.far, "link", "set", "cable", "up"),
        )
        for step in steps:
            ended = _run("ip", *step)
            if ended.returncode != 0:
                self.__exit__()
                _lacking("network namespaces", ended)
        return self

    def __exit__(self, *_: object) -> None:
        for name in (self.home, self.far):
            _run("ip", "netns", "del", name)

    def plug(self, *, is_in: bool) -> None:
        _run("ip", "-n", self.far, "link", "set", "cable", "up" if is_in else "down")

    @staticmethod
    def on(host: str, command: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", host, *command]


class MemoryLimit:
    """A control group that may use this much."""

    def __init__(self, mib: int) -> None:
        self._mib = mib
        is_old = Path("/sys/fs/cgroup/memory/memory.limit_in_bytes").exists()
        root = Path("/sys/fs/cgroup/memory" if is_old else "/sys/fs/cgroup")
        self._folder = root / f"flowd-test-{os.getpid()}"
        self._limits = (
            ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes")
            if is_old
            else ("memory.max", "memory.swap.max")
        )
        self._counts = "memory.oom_control" if is_old else "memory.events"

    def __enter__(self) -> MemoryLimit:
        try:
            self._folder.mkdir()
            (self._folder / self._limits[0]).write_text(str(self._mib * 2**20))
        except OSError as error:
            self.__exit__()
            _lacking(f"a memory control group of its own ({error})")
        with contextlib.suppress(OSError):
            (self._folder / self._limits[1]).write_text(str(self._mib * 2**20))
        return self

    def __exit__(self, *_: object) -> None:
        with contextlib.suppress(OSError):
            self._folder.rmdir()

    def take(self, pid: int) -> None:
        (self._folder / "cgroup.procs").write_text(str(pid))

    @property
    def kills(self) -> int:
        """How often the kernel has killed in it."""
        lines = (self._folder / self._counts).read_text().splitlines()
        return sum(int(line.split()[1]) for line in lines if line.startswith("oom_kill "))


@contextmanager
def small_disk(path: Path, mib: int) -> Iterator[Path]:
    """A disk of its own at `path`."""
    path.mkdir()
    ended = _run("mount", "-t", "tmpfs", "-o", f"size={mib}m,mode=700", "flowd-test", str(path))
    if ended.returncode != 0:
        _lacking("the right to mount a small disk", ended)
    try:
        yield path
    finally:
        _run("umount", "--lazy", str(path))


def fill(disk: Path) -> Path:
    """A file that takes all the room that is left."""
    stuffing = disk / "stuffing"
    with contextlib.suppress(OSError), stuffing.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return stuffing
