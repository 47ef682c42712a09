"""Run a flowd of one's own as a child, with none of the user's settings: to show, measure or test.

Nobody else starts one: the demo, `flowd run --local`, the bench, the soak and the tests add what
they need to these.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import Any, Self

from flowd.config import Settings
from flowd.config.loading import load_settings
from flowd.prctl import end_with_parent
from flowd.supervisor.asking import ControlUnavailable, ask
from flowd.supervisor.child import describe_exit

START_LIMIT_S = 30.0
STOP_LIMIT_S = 30.0
START = (sys.executable, "-m", "flowd.cli.main", "start")
_POLL_S = 0.005
_LOG_TAIL_LINES = 20


class FlowdFailed(Exception):
    """It did not start, or did not stop gracefully; the text says how."""


def clean_environment() -> dict[str, str]:
    """The environment without anybody's settings of flowd."""
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLOWD_", "REDIS_", "WORKER_"))
        and name not in ("ENVIRONMENT", "DEBUG")
    }


def is_all_running(status: Mapping[str, Any]) -> bool:
    return status["state"] == "RUNNING" and all(
        process["state"] == "RUNNING" for process in status["processes"]
    )


def leave_on_signals() -> None:
    """Let SIGTERM and SIGHUP leave through every `finally`, in which what runs is stopped."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        # Under nohup it outlives its terminal.
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, _leave)


def _leave(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)


class PrivateFlowd:
    """A command as a child in a session of its own, in a folder where its output stands too.

    It is killed with the thread that has started it.
    """

    output_file = errors_file = "log"
    # Where it works, if not in its folder.
    work_dir: Path | None = None
    process: subprocess.Popen[bytes]

    def __init__(
        self,
        folder: Path,
        command: Sequence[str] = START,
        *,
        environ: Mapping[str, str] | None = None,
        data_dir: Path | None = None,
    ) -> None:
        self.folder = folder
        self.data_dir = data_dir or folder / "data"
        self.command = command
        self.environ = clean_environment() if environ is None else dict(environ)

    @property
    def settings(self) -> Settings:
        return load_settings(self.folder / "flowd.toml", environ={})

    def start(self) -> None:
        """It need not be ready when this returns; after its end it may be started again."""
        self.process = self.spawn(self.command)

    def spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        """A process beside it, that lives as it does."""
        output, errors = self.folder / self.output_file, self.folder / self.errors_file
        with output.open("ab") as standard_output, errors.open("ab") as standard_error:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=standard_output,
                stderr=standard_error,
                cwd=self.work_dir or self.folder,
                env=self.environ,
                # Ctrl-C is for the parent, which then stops it gracefully.
                start_new_session=True,
                preexec_fn=end_with_parent,
            )

    @property
    def has_ended(self) -> bool:
        """Not by `poll`: a Ctrl-C in its midst may leave its lock taken, and `wait` for ever."""
        if self.process.returncode is not None:
            return True
        flags = os.WEXITED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.process.pid, flags) is not None

    def status(self) -> dict[str, Any] | None:
        """What `flowd status` knows, None while nobody answers."""
        return self.order("status")

    def order(self, command: str, **arguments: Any) -> dict[str, Any] | None:
        """The supervisor's answer, None while it gives none."""
        with contextlib.suppress(ControlUnavailable):
            return ask(self.data_dir, command, **arguments)
        return None

    def is_ready(self) -> bool:
        status = self.status()
        return status is not None and is_all_running(status)

    def wait_until_ready(self, limit_s: float = START_LIMIT_S) -> dict[str, Any]:
        """The status once every process runs. Raises FlowdFailed when it ends, or takes longer."""
        deadline = time.monotonic() + limit_s
        while (status := self.status()) is None or not is_all_running(status):
            if self.has_ended:
                code = self.process.wait()
                raise FlowdFailed(
                    f"flowd {describe_exit(code)} before it was ready{self.log_tail()}"
                )
            if time.monotonic() >= deadline:
                raise FlowdFailed(f"flowd was not ready within {limit_s:g} s{self.log_tail()}")
            time.sleep(_POLL_S)
        return status

    def pids(self, role: str) -> list[int]:
        """Of those that run."""
        return [
            process["pid"]
            for process in (self.status() or {"processes": []})["processes"]
            if process["role"] == role and process["state"] == "RUNNING"
        ]

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def stop(self) -> int:
        """End it gracefully, by force when that takes too long; its exit code."""
        self.signal(signal.SIGTERM)
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(STOP_LIMIT_S)
        finally:
            # Late, or a second Ctrl-C: the supervisor's death ends everything below it.
            self.kill_supervisor()
        return self.process.returncode

    def kill_supervisor(self) -> None:
        self.process.kill()
        self.process.wait()

    def log_tail(self) -> str:
        """The last lines of what it wrote, to stand below a sentence; none if there are none."""
        with contextlib.suppress(OSError):
            lines = (self.folder / self.errors_file).read_text("utf-8", "replace").splitlines()
            if lines:
                return "\n".join(["; the last lines of its log:", *lines[-_LOG_TAIL_LINES:]])
        return ""


class TemporaryFlowd(PrivateFlowd):
    """One with a folder that is gone after its `with`, which raises FlowdFailed if it failed."""

    def __init__(
        self,
        config: str,
        command: Sequence[str] = START,
        *,
        parent: Path | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(
            Path(tempfile.mkdtemp(prefix="flowd-", dir=parent)),
            command,
            environ=clean_environment() | dict(environ or {}),
        )
        (self.folder / "flowd.toml").write_text(config, "utf-8")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            code = self.stop() if hasattr(self, "process") else 0
            tail = self.log_tail()
        finally:
            shutil.rmtree(self.folder, ignore_errors=True)
        # Who is on the way out already has a better reason.
        if code and kind is None:
            raise FlowdFailed(f"flowd {describe_exit(code)} when it was stopped{tail}")
