"""What processes cost: processor time, memory, and a process of one's own for a measurement."""

from __future__ import annotations

import multiprocessing
import re
import signal
import time
from collections.abc import Callable, Iterable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from flowd.prctl import end_with_parent

_PATIENCE_S = 60.0
_fork = multiprocessing.get_context("fork")


class Void(Exception):
    """What was measured is worth nothing; the text says why."""


def cpu_s(pid: int) -> float:
    """Processor time of a process and all its threads, to the nanosecond.

    The clock id is the one clock_getcpuclockid(3) computes.
    """
    return time.clock_gettime((~pid << 3) | 2)


def cpu_of(pids: Iterable[int]) -> float:
    return sum(cpu_s(pid) for pid in pids)


def pss_mib(pid: int) -> float:
    """Memory of a process, each shared page divided by those who share it."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB$", text, re.MULTILINE)
    assert found is not None
    return int(found[1]) / 1024


def busy_percent(seconds: float) -> float:
    """How busy all cores are, of which 100 is everything the machine has."""
    before = _core_ticks()
    time.sleep(seconds)
    idle, total = (now - then for now, then in zip(_core_ticks(), before, strict=True))
    return 100 * (1 - idle / total) if total else 0.0


def _core_ticks() -> tuple[int, int]:
    """Idle ticks and all ticks since the machine started (proc_stat(5))."""
    ticks = [int(one) for one in Path("/proc/stat").read_text().splitlines()[0].split()[1:9]]
    return ticks[3] + ticks[4], sum(ticks)


class Partner:
    """A forked process that works when it is told to.

    `prepare` runs in it once and returns the work, which is called with each order's arguments.
    """

    def __init__(self, prepare: Callable[[], Callable[..., Any]]) -> None:
        self._pipe, theirs = multiprocessing.Pipe()
        self._process = _fork.Process(target=_serve, args=(theirs, prepare), daemon=True)
        self._process.start()
        theirs.close()

    @property
    def pid(self) -> int:
        assert self._process.pid is not None
        return self._process.pid

    def order(self, *arguments: Any) -> None:
        self._pipe.send(arguments)

    def result(self) -> Any:
        """What the work of the last order returned. Raises Void when it broke off."""
        if not self._pipe.poll(_PATIENCE_S):
            raise Void(f"a process of the bench did not end within {_PATIENCE_S:g} s")
        try:
            answer = self._pipe.recv()
        except EOFError:
            raise Void("a process of the bench ended before its work was done") from None
        if isinstance(answer, Exception):
            raise Void(f"a process of the bench failed: {answer!r}")
        return answer

    def close(self) -> None:
        self._process.kill()
        self._process.join()
        self._pipe.close()


def _serve(pipe: Connection, prepare: Callable[[], Callable[..., Any]]) -> None:
    end_with_parent()
    # Ctrl-C reaches everybody at the terminal; the bench ends its processes itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    work: Callable[..., Any] | None = None
    while True:
        arguments = pipe.recv()
        try:
            work = work or prepare()
            pipe.send(work(*arguments))
        except Exception as error:  # noqa: BLE001 - told to the parent, whatever it is
            pipe.send(error)
