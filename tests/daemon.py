"""A daemon under test: in a session of its own, so that nothing it leaves behind can hide."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psutil

from flowd.cli.private_flowd import PrivateFlowd, is_all_running

T = TypeVar("T")

# A loaded machine is slow in everything; where all is well, nobody waits so long.
PATIENCE_S = 180.0
# Its pidfd, its ready pipe and the memory for its stacks.
DESCRIPTORS_OF_A_CHILD = 3


def wait_until(find: Callable[[], T], what: str) -> T:
    """What `find` returns once it is true; fails the test after PATIENCE_S."""
    begun = time.monotonic()
    while not (found := find()):
        assert time.monotonic() < begun + PATIENCE_S, f"waited {PATIENCE_S:g} s in vain for {what}"
        time.sleep(0.005)
    warn_of_long_wait(begun, PATIENCE_S, what)
    return found


def warn_of_long_wait(begun: float, patience_s: float, what: str) -> None:
    """Said at the end of the run: a test that waits so long is looked at before it fails."""
    waited_s = time.monotonic() - begun
    if waited_s > patience_s / 2:
        warnings.warn(f"{waited_s:.0f} s of {patience_s:g} s passed: {what}", stacklevel=3)


class Daemon(PrivateFlowd):
    """`arguments` run in `folder`; what they write is in the files `stdout` and `stderr` there."""

    output_file, errors_file = "stdout", "stderr"

    def __init__(
        self, arguments: Sequence[str], folder: Path, data_dir: Path, environ: Mapping[str, str]
    ) -> None:
        super().__init__(folder, arguments, data_dir=data_dir, environ=environ)
        # Of the supervisor beside those it has for each child, when all of them ran first.
        self._descriptors: int | None = None
        self.start()

    def __enter__(self) -> Daemon:
        return self

    def __exit__(self, *_: object) -> None:
        for one in self.survivors():
            with contextlib.suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def wait_for_status(self, is_right: Callable[[dict[str, Any]], bool], what: str) -> Any:
        def find() -> dict[str, Any] | None:
            assert self.process.poll() is None, f"it ended:\n{self.stderr}"
            status = self.status()
            return status if status and is_right(status) else None

        return wait_until(find, what)

    def wait_until_running(self) -> dict[str, Any]:
        status: dict[str, Any] = self.wait_for_status(is_all_running, "every child to be ready")
        if self._descriptors is None:
            self._descriptors = self._count_descriptors()
        return status

    @property
    def supervisor(self) -> psutil.Process:
        return psutil.Process(self.process.pid)

    def _count_descriptors(self) -> int:
        children = self.supervisor.children()
        return self.supervisor.num_fds() - DESCRIPTORS_OF_A_CHILD * len(children)

    def check_descriptors(self) -> None:
        """The supervisor holds none for a child that has died. Once it was seen to run."""
        if (known := self._descriptors) is not None:
            wait_until(
                lambda: self._count_descriptors() <= known,
                "the descriptors of the dead to be closed",
            )

    def check_leftovers(self) -> None:
        """However it ends, no process of the session outlives it, and it has leaked nothing."""
        if self.process.poll() is None:
            status = self.status()
            # A role beside the daemon has no supervisor, and one that stands still does not answer.
            if status is None or status["pid"] != self.process.pid:
                self.process.kill()
            else:
                self.check_descriptors()
                self.signal(signal.SIGQUIT)
            self.wait_for_end()
        wait_until(lambda: not self.survivors(), "every process of the session to be gone")

    def post(self, name: str) -> dict[str, Any]:
        """What the status says of one process."""
        status = self.status()
        assert status is not None
        (found,) = (one for one in status["processes"] if one["name"] == name)
        return dict(found)

    def wait_for_post(self, name: str, is_right: Callable[[dict[str, Any]], bool]) -> Any:
        """The status of one process once `is_right` says so."""

        def find(status: dict[str, Any]) -> bool:
            return any(one["name"] == name and is_right(one) for one in status["processes"])

        self.wait_for_status(find, f"{name} to change")
        return self.post(name)

    def kill(self, name: str, number: signal.Signals = signal.SIGKILL) -> int:
        """Signal one of the processes; its pid."""
        pid = int(self.post(name)["pid"])
        os.kill(pid, number)
        return pid

    def wait_for_end(self) -> int:
        return self.process.wait(PATIENCE_S)

    def survivors(self) -> list[psutil.Process]:
        """Every living process of the session. A daemon nobody waited for is not living."""
        return [one for one in psutil.process_iter() if _is_alive_in(one, self.process.pid)]

    @property
    def stdout(self) -> str:
        return (self.folder / "stdout").read_text()

    @property
    def stderr(self) -> str:
        return (self.folder / "stderr").read_text()

    def events(self, event: str) -> list[dict[str, Any]]:
        """The log lines of this event so far."""
        whole = whole_lines(self.folder / "stderr")
        lines = [json.loads(line) for line in whole if line.startswith("{")]
        return [line for line in lines if line["event"] == event]


def whole_lines(path: Path) -> list[str]:
    """Of a file that others write to: without one that has been begun."""
    return path.read_text().rpartition("\n")[0].splitlines()


@contextlib.contextmanager
def ended_with(test: str, running: Sequence[Daemon]) -> Iterator[None]:
    """Every daemon ends with the test; after a fault of processes (`test_p08_...`) none is left."""
    try:
        yield
        if test.startswith("test_p"):
            for daemon in running:
                daemon.check_leftovers()
    finally:
        for daemon in running:
            with daemon:
                pass


def is_gone(pid: int) -> bool:
    """Also one that has ended and that nobody has taken note of yet."""
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def _is_alive_in(process: psutil.Process, session: int) -> bool:
    try:
        return os.getsid(process.pid) == session and process.status() != psutil.STATUS_ZOMBIE
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
