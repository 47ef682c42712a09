"""A bare Redis server on a unix socket, for what the soak and the tests do to one."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from pathlib import Path

from flowd.prctl import end_with_parent
from flowd.supervisor.bare_redis import ProbeResult, probe
from flowd.supervisor.embedded_server import find_binary

START_LIMIT_S = 180.0


class RedisServer:
    """The embedded server's binary, or the one FLOWD_TEST_REDIS_SERVER names; ends with us."""

    process: subprocess.Popen[bytes]
    # What stands before its command.
    within: tuple[str, ...] = ()

    def __init__(self, folder: Path, **options: str | tuple[str, ...]) -> None:
        """`options` as in redis.conf, with `_` for `-`."""
        self.folder = folder
        self.socket_path = str(folder / "redis.sock")
        self._options: dict[str, str | tuple[str, ...]] = {
            "port": "0",
            "unixsocket": self.socket_path,
            "dir": str(folder),
            "save": "",
            "appendonly": "no",
            "hash-max-listpack-value": "128",
            "hash-max-listpack-entries": "128",
            "logfile": str(folder / "redis.log"),
        } | {name.replace("_", "-"): value for name, value in options.items()}

    def start(self) -> None:
        binary = find_binary(os.environ.get("FLOWD_TEST_REDIS_SERVER"))
        options = []
        for name, value in self._options.items():
            options += [f"--{name}", *([value] if isinstance(value, str) else value)]
        self.process = subprocess.Popen(
            [*self.within, binary, *options], stdin=subprocess.DEVNULL, preexec_fn=end_with_parent
        )
        deadline = time.monotonic() + START_LIMIT_S
        while probe(self.socket_path) is not ProbeResult.READY:
            assert self.process.poll() is None, f"the Redis server ended at once:\n{self._log()}"
            assert time.monotonic() < deadline, f"no answer from the Redis server:\n{self._log()}"
            time.sleep(0.01)

    def _log(self) -> str:
        log = self.folder / "redis.log"
        return log.read_text(errors="replace") if log.exists() else "it has no log"

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
