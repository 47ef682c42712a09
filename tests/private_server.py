"""A Redis server of a test process's own, on a unix socket, gone with the process."""

from __future__ import annotations

import contextlib
import ctypes
import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path

from flowd.config import Settings
from flowd.config.loading import load_settings
from flowd.supervisor.embedded_server import ProbeResult, find_binary, probe

START_TIMEOUT_S = 180.0


class PrivateServer:
    """Runs the embedded server's binary, or the one FLOWD_TEST_REDIS_SERVER names."""

    def __init__(self, **options: str) -> None:
        """`options` as in redis.conf, with `_` for `-`."""
        self._options = {name.replace("_", "-"): value for name, value in options.items()}
        self.folder = Path(tempfile.mkdtemp(prefix="flowd-test-"))
        self.socket_path = str(self.folder / "redis.sock")
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        binary = find_binary(os.environ.get("FLOWD_TEST_REDIS_SERVER"))
        options = {
            "port": "0",
            "unixsocket": self.socket_path,
            "dir": str(self.folder),
            "save": "",
            "appendonly": "no",
            "hash-max-listpack-value": "128",
            "enable-debug-command": "local",
            "enable-protected-configs": "local",
            **self._options,
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self.process = subprocess.Popen(
            [binary, *arguments],
            stdout=subprocess.DEVNULL,
            preexec_fn=_end_with_parent,
        )
        deadline = time.monotonic() + START_TIMEOUT_S
        while probe(self.socket_path) is not ProbeResult.READY:
            assert self.process.poll() is None, "the test server ended at once"
            assert time.monotonic() < deadline, "the test server does not answer"
            time.sleep(0.01)

    def stop(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def settings(self, **flags: object) -> Settings:
        """Settings of nobody's environment, with the store on this server."""
        config = self.folder / "flowd.toml"
        config.touch()
        settings = load_settings(config, flags, {})
        return settings.with_redis_socket(self.socket_path)


def free_port() -> int:
    """Below those the system gives out: nobody is given it by chance before it is bound."""
    while True:
        port = random.SystemRandom().randrange(12_000, 32_000)
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            return port


def _end_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)
