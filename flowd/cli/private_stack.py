"""A whole flowd for a while: a free port, temporary data, none of the user's settings."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

from flowd.config import Settings
from flowd.config.loading import load_settings
from flowd.prctl import end_with_parent
from flowd.supervisor.asking import ControlUnavailable, ask
from flowd.supervisor.child import describe_exit

_POLL_S = 0.02
_STOP_LIMIT_S = 15.0
_LOG_TAIL_LINES = 20

# What the samples call is written out: the demo must show the same whatever the defaults become.
_CONFIG = """\
[api]
host = "127.0.0.1"
port = 0

[redis]
mode = "embedded"
port = 0
data_dir = "data"

[workers]
count = 2

[shutdown]
grace_s = 2

[handlers.call_external_service]
simulated_hosts = ["service-a", "service-b", "service-c", "service-d", "consumer"]
"""


class StackFailed(Exception):
    """The stack did not start, or did not stop gracefully; the text says how."""


class PrivateStack:
    """A real `flowd start` as a child, from `with` to the end of it; then every file is gone."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="flowd-demo-"))
        self._config = self._folder / "flowd.toml"
        self._log = self._folder / "log"
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> PrivateStack:
        self._config.write_text(_CONFIG, "utf-8")
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "flowd.cli.main", "start", "--config", str(self._config)],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=_environment(),
                # Ctrl-C is for the demo, which then stops the stack gracefully.
                process_group=0,
                preexec_fn=partial(end_with_parent, signal.SIGTERM),
            )
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            problem = self._stop()
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)
        # Who is on the way out already has a better reason, or stopped it before it was up.
        if problem and kind is None:
            raise StackFailed(problem)

    @property
    def settings(self) -> Settings:
        return load_settings(self._config, environ={})

    def wait_until_ready(self, deadline: float) -> str:
        """The API's url once every process is ready; `deadline` is monotonic."""
        while True:
            status = self._status()
            if status is not None and status["state"] == "RUNNING":
                return str(status["api"])
            self._check_alive()
            if time.monotonic() >= deadline:
                raise StackFailed("the stack was not ready in time")
            time.sleep(_POLL_S)

    def log_tail(self) -> str:
        try:
            lines = self._log.read_text("utf-8", "replace").splitlines()
        except OSError:
            return ""
        return "\n".join(lines[-_LOG_TAIL_LINES:])

    def _stop(self) -> str | None:
        """End every process; what went wrong with that, if anything did."""
        process = self._process
        if process is None:
            return None
        process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(_STOP_LIMIT_S)
        except subprocess.TimeoutExpired:
            return f"the stack did not stop within {_STOP_LIMIT_S:g} s"
        finally:
            # Late, or a second Ctrl-C: the supervisor's death ends everything below it.
            if process.poll() is None:
                process.kill()
                process.wait()
        return f"the stack {describe_exit(code)} when it was stopped" if code else None

    def _status(self) -> dict[str, Any] | None:
        try:
            return ask(self._folder / "data", "status")
        except ControlUnavailable:
            return None

    def _check_alive(self) -> None:
        code = self._process.poll() if self._process else None
        if code is not None:
            raise StackFailed(f"the stack {describe_exit(code)} before it was ready")


def _environment() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("FLOWD_", "REDIS_", "WORKER_"))
        and name not in ("ENVIRONMENT", "DEBUG")
    }
