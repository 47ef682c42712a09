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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import redis as redis_py

from flowd.cli.private_flowd import PrivateFlowd
from scripts.redis_server import RedisServer
from scripts.replica_set import ReplicaSet, wait_for
from scripts.soaking.handlers import LEDGER
from scripts.soaking.limit_checks import GROUPS

ROOT = Path(__file__).parents[2]
# The oldest version that may share a Redis with this one. When keys change their meaning, move it.
OTHER_VERSION = "6787b44cec4f"
WORKERS = 2
APIS = 1
HUNG_AFTER_S = 3.0
_CONFIG = """\
[api]
port = 0
processes = {apis}
[redis]
mode = "external"
url = "{url}"
replicas = {replicas}
data_dir = "data"
[workers]
count = {workers}
{queues}
{groups}
[supervisor]
hung_after_s = {hung_after_s}
[shutdown]
grace_s = 5.0
[handlers]
modules = ["scripts.soaking.handlers"]
"""


_DURABLE = {"appendonly": "yes", "appendfsync": "always", "maxmemory_policy": "noeviction"}


class Server(RedisServer):
    """A Redis with durability always, that may be killed and started again."""

    # Which flowd waits for.
    replicas = 0

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, **_DURABLE)

    @property
    def url(self) -> str:
        return f"unix://{self.socket_path}"

    def close(self) -> None:
        self.kill()

    def client(self) -> redis_py.Redis:
        return redis_py.Redis(
            unix_socket_path=self.socket_path, decode_responses=True, socket_timeout=10
        )


class WatchedServer(Server):
    """As Server: a primary, its replica and three Sentinels, so that it fails over whenever
    something happens to it for long enough."""

    replicas = 1

    def __init__(self, folder: Path) -> None:
        (folder / "watched").mkdir()
        self._set = ReplicaSet(folder / "watched", self.replicas, sentinels=3, **_DURABLE)
        self._has_started = False

    @property
    def url(self) -> str:
        return self._set.url

    @property
    def socket_path(self) -> str:  # type: ignore[override]
        return self._set.named_server.socket_path

    def start(self) -> None:
        """The first time; from then on, what has ended or is frozen, behind the new primary."""
        if self._has_started:
            self._set.mend()
        else:
            self._set.__enter__()
            self._has_started = True

    def signal(self, number: signal.Signals) -> None:
        if number == signal.SIGCONT:
            self._set.mend()
        else:
            self._set.named_server.process.send_signal(number)

    def kill(self) -> None:
        self._set.named_server.kill()

    def fail_over(self) -> None:
        """Of a primary that lives and writes."""
        before = self._set.named
        self._set.fail_over()
        wait_for(lambda: self._set.named != before, "another primary")
        self._set.mend()

    def close(self) -> None:
        self._set.__exit__()


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


class Host(PrivateFlowd):
    """A `flowd start` with a data directory and a host name of its own; without `queues` its
    workers read the default one, as the other version does, and there are no others."""

    def __init__(
        self,
        folder: Path,
        name: str,
        server: Server,
        ledger: Path,
        other_version: Path | None,
        queues: Sequence[str] = (),
    ) -> None:
        command = (sys.executable, "-m", "scripts.soaking.host_main", "start")
        super().__init__(folder / name, command)
        self.name = name
        # With those of the groups.
        self.workers = WORKERS + (len(GROUPS) if queues else 0)
        self._other_version = other_version
        self._is_other_version = False
        self.folder.mkdir()
        config = _CONFIG.format(
            url=server.url,
            replicas=server.replicas,
            workers=WORKERS,
            apis=APIS,
            hung_after_s=HUNG_AFTER_S,
            queues=f"queues = {json.dumps(list(queues))}" if queues else "",
            groups="\n".join(map(_group, GROUPS)) if queues else "",
        )
        (self.folder / "flowd.toml").write_text(config)
        self.environ |= {"SOAK_HOST": name, LEDGER: str(ledger)}
        self._url: str | None = None
        # Whoever restarts the supervisor, or stops it for a while, has the host to itself.
        self.lock = threading.Lock()

    @property
    def is_of_this_version(self) -> bool:
        return not self._is_other_version

    def change_version(self) -> None:
        """From the next start on."""
        self._is_other_version = not self._is_other_version

    def start(self) -> None:
        found = [self._other_version] if self._is_other_version else []
        self.environ["PYTHONPATH"] = os.pathsep.join(str(one) for one in (*found, ROOT))
        super().start()

    def signal_all(self, number: signal.Signals) -> None:
        """Every process of the host, the supervisor first."""
        supervisor = psutil.Process(self.process.pid)
        family = [supervisor, *supervisor.children(recursive=True)]
        for one in family:
            with contextlib.suppress(psutil.NoSuchProcess):
                one.send_signal(number)

    def order(self, command: str, **arguments: Any) -> dict[str, Any] | None:
        """As of any flowd; who is frozen is not waited for."""
        return super().order(command, timeout_s=1.0, **arguments)

    def status(self) -> dict[str, Any] | None:
        status = super().status()
        if status and status.get("api"):
            self._url = status["api"]
        return status

    def api_url(self) -> str | None:
        """Where it answers, as far as that is known."""
        return self._url or (self.status() or {}).get("api")

    def request(
        self, method: str, path: str, body: bytes | None = None, **headers: str
    ) -> tuple[int, Any]:
        """Status code and body. Raises OSError or HTTPException when there was no answer."""
        url = self.api_url()
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


def _group(name: str) -> str:
    return f"[workers.groups.{name}]\ncount = 1\nqueues = {json.dumps(list(GROUPS[name]))}"


def _headers(given: Mapping[str, str]) -> dict[str, str]:
    named = {name.replace("_", "-"): value for name, value in given.items()}
    return {"Content-Type": "application/json", **named}
