"""What a soak runs on: a Redis server that loses nothing, and hosts that share it."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import subprocess
import sys
import tarfile
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import redis as redis_py

from flowd.supervisor.asking import ControlUnavailable, ask
from flowd.supervisor.embedded_server import ProbeResult, find_binary, probe
from scripts.benchmark.processes import Void, clean_environment, end_with_parent
from scripts.soaking.handlers import LEDGER

ROOT = Path(__file__).parents[2]
# The oldest version that may share a Redis with this one. When keys change their meaning, move it.
OTHER_VERSION = "6787b44cec4f"
WORKERS = 2
APIS = 1
HUNG_AFTER_S = 3.0
START_LIMIT_S = 30.0
_CONFIG = """\
[api]
port = 0
processes = {apis}
[redis]
mode = "external"
url = "unix://{socket}"
data_dir = "data"
[workers]
count = {workers}
[supervisor]
hung_after_s = {hung_after_s}
[shutdown]
grace_s = 5.0
[handlers]
modules = ["scripts.soaking.handlers"]
"""


class Server:
    """A Redis with durability always, that may be killed and started again."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self.socket_path = str(folder / "redis.sock")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        options = {
            "port": "0",
            "unixsocket": self.socket_path,
            "dir": str(self._folder),
            "save": "",
            "appendonly": "yes",
            "appendfsync": "always",
            "maxmemory-policy": "noeviction",
            "hash-max-listpack-value": "128",
            "logfile": str(self._folder / "redis.log"),
        }
        arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
        self._process = subprocess.Popen(
            [find_binary(os.environ.get("FLOWD_TEST_REDIS_SERVER")), *arguments],
            stdin=subprocess.DEVNULL,
            preexec_fn=_end_with_parent,
        )
        deadline = time.monotonic() + START_LIMIT_S
        while probe(self.socket_path) is not ProbeResult.READY:
            if time.monotonic() > deadline:
                raise Void(f"the Redis server does not answer: {self._folder / 'redis.log'}")
            time.sleep(0.01)

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def client(self) -> redis_py.Redis:
        return redis_py.Redis(
            unix_socket_path=self.socket_path, decode_responses=True, socket_timeout=10
        )


def unpack_other_version(folder: Path) -> Path | None:
    """Where `import flowd` finds the other version; None when this clone does not know it."""
    archive, unpacked = folder / "other_version.tar", folder / "other_version"
    command = ["git", "-C", str(ROOT), "archive", f"--output={archive}", OTHER_VERSION, "flowd"]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except (OSError, subprocess.CalledProcessError):
        return None
    with tarfile.open(archive) as opened:
        opened.extractall(unpacked, filter="data")
    return unpacked


class Host:
    """A `flowd start` with a data directory and a host name of its own."""

    def __init__(
        self, folder: Path, name: str, socket_path: str, ledger: Path, other_version: Path | None
    ) -> None:
        self.name = name
        self._other_version = other_version
        self._is_other_version = False
        self._folder = folder / name
        self._folder.mkdir()
        config = _CONFIG.format(
            socket=socket_path, workers=WORKERS, apis=APIS, hung_after_s=HUNG_AFTER_S
        )
        (self._folder / "flowd.toml").write_text(config)
        self._environ = clean_environment() | {
            "SOAK_HOST": name,
            LEDGER: str(ledger),
        }
        self._process: subprocess.Popen[bytes] | None = None
        self._url: str | None = None
        # Whoever restarts the supervisor, or stops it for a while, has the host to itself.
        self.lock = threading.Lock()

    @property
    def log_path(self) -> Path:
        return self._folder / "log"

    @property
    def is_of_this_version(self) -> bool:
        return not self._is_other_version

    def change_version(self) -> None:
        """From the next start on."""
        self._is_other_version = not self._is_other_version

    def start(self) -> None:
        found = [self._other_version] if self._is_other_version else []
        python_path = os.pathsep.join(str(one) for one in (*found, ROOT))
        with self.log_path.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scripts.soaking.host_main", "start"],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env={**self._environ, "PYTHONPATH": python_path},
                start_new_session=True,
                preexec_fn=_end_with_parent,
            )

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def signal_all(self, number: signal.Signals) -> None:
        """Every process of the host, the supervisor first."""
        family = [psutil.Process(self.pid), *psutil.Process(self.pid).children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def stop(self) -> int:
        """End it in order; its exit code."""
        self.signal(signal.SIGTERM)
        assert self._process is not None
        try:
            return self._process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def order(self, command: str, **arguments: Any) -> dict[str, Any] | None:
        """None while the supervisor does not answer."""
        with contextlib.suppress(ControlUnavailable):
            return ask(self._folder / "data", command, timeout_s=1.0, **arguments)
        return None

    def status(self) -> dict[str, Any] | None:
        status = self.order("status")
        if status and status.get("api"):
            self._url = status["api"]
        return status

    def is_ready(self) -> bool:
        status = self.status()
        return status is not None and all(one["state"] == "RUNNING" for one in status["processes"])

    def wait_until_ready(self, limit_s: float = START_LIMIT_S) -> None:
        deadline = time.monotonic() + limit_s
        while not self.is_ready():
            if self.has_ended or time.monotonic() > deadline:
                raise Void(f"{self.name} is not ready; its log is {self.log_path}")
            time.sleep(0.02)

    def pids(self, role: str) -> list[int]:
        """Of those that run."""
        status = self.status() or {"processes": []}
        return [
            one["pid"]
            for one in status["processes"]
            if one["role"] == role and one["state"] == "RUNNING"
        ]

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status code and body. Raises OSError or HTTPException when there was no answer."""
        url = self._url or (self.status() or {}).get("api")
        if url is None:
            raise ConnectionError(f"{self.name} has no address yet")
        parts = urlsplit(url)
        connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=5)
        try:
            connection.request(method, path, body, _headers(headers))
            answer = connection.getresponse()
            return answer.status, json.loads(answer.read() or b"null")
        except (ConnectionRefusedError, ValueError) as error:
            # It may have come back at another port.
            self._url = None
            raise ConnectionError(str(error)) from error
        finally:
            connection.close()


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in given.items()}
    return {"Content-Type": "application/json", **named}


def _end_with_parent() -> None:
    end_with_parent(signal.SIGKILL)
