"""A private flowd to measure: a real `flowd start`, on its own server and its own files.

Without persistence (`none`) the bench runs the server, with the configuration flowd writes for its
embedded one but no append-only file, and flowd joins it as an external Redis. With a durability of
flowd's own the embedded server is used as it is shipped.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TypeVar
from urllib.parse import urlsplit

from flowd.cli.private_flowd import START_LIMIT_S, FlowdFailed, TemporaryFlowd
from flowd.config import Settings
from flowd.supervisor.bare_redis import ProbeResult, probe
from flowd.supervisor.embedded_server import EmbeddedServer, find_binary

T = TypeVar("T")

NO_PERSISTENCE = "none"
DURABILITIES = (NO_PERSISTENCE, "everysec", "always")
_POLL_S = 0.005
_SERVER = "server"
FLOWD = ("-m", "flowd.cli.main")
ROOT = Path(__file__).parents[2]

_CONFIG = """\
[api]
host = "127.0.0.1"
port = {port}

[redis]
mode = "embedded"
port = 0
data_dir = "data"
durability = "{durability}"

[workers]
count = {workers}
"""


def wait_for(find: Callable[[], T], what: str, limit_s: float = START_LIMIT_S) -> T:
    """What `find` returns once it is true. Raises FlowdFailed after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not (found := find()):
        if time.monotonic() >= deadline:
            raise FlowdFailed(f"waited {limit_s:g} s in vain for {what}")
        time.sleep(_POLL_S)
    return found


class Stack(TemporaryFlowd):
    """From `start` to the end of its `with` a flowd runs; its files are gone after that.

    `program` is what the interpreter runs in place of flowd's command line, and `variables` go into
    its environment: for a flowd with something added.
    """

    def __init__(
        self,
        parent: Path,
        durability: str = NO_PERSISTENCE,
        *,
        program: Sequence[str] = FLOWD,
        variables: Mapping[str, str] | None = None,
        port: int = 0,
        workers: int = 2,
        extra_config: str = "",
    ) -> None:
        # A server of the bench's own keeps the file flowd would write; the value is overruled.
        written = "always" if durability == NO_PERSISTENCE else durability
        super().__init__(
            _CONFIG.format(port=port, durability=written, workers=workers) + extra_config,
            (sys.executable, *program, "start"),
            parent=parent,
            environ={"PYTHONPATH": str(ROOT), **(variables or {})},
        )
        self._durability = durability
        self._server: subprocess.Popen[bytes] | None = None

    @property
    def settings(self) -> Settings:
        """The stack's own, for a store of the bench."""
        return super().settings.with_redis_socket(self.socket_path)

    @property
    def socket_path(self) -> str:
        return str(self.data_dir / "redis.sock")

    def start(self) -> None:
        if self._durability == NO_PERSISTENCE:
            self._start_server()
            # flowd reads the same file, and joins this server instead of starting one.
            self.environ["FLOWD_REDIS__MODE"] = "external"
            self.environ["FLOWD_REDIS__URL"] = f"unix://{self.socket_path}"
        super().start()

    def _start_server(self) -> None:
        redis = super().settings.redis
        EmbeddedServer(redis).prepare()
        command = [find_binary(), str(redis.data_dir / "redis.conf"), "--appendonly", "no"]
        self._server = self.spawn(command)
        wait_for(lambda: probe(self.socket_path) is ProbeResult.READY, "the server to answer")

    def processes(self) -> dict[str, int]:
        """The pids of flowd's processes by name, the server not among them."""
        status = self.wait_until_ready()
        found = {one["name"]: one["pid"] for one in status["processes"] if one["role"] != _SERVER}
        return {"supervisor": status["pid"], **found}

    def server_pid(self) -> int:
        if self._server is not None:
            return self._server.pid
        (found,) = self.pids(_SERVER)
        return found

    def api_address(self) -> tuple[str, int]:
        parts = urlsplit(self.wait_until_ready()["api"])
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def stop(self) -> int:
        try:
            return super().stop()
        finally:
            if self._server is not None:
                self._server.terminate()
                self._server.wait()


@contextmanager
def running_stacks(parent: Path, *durabilities: str) -> Iterator[list[Stack]]:
    """Stacks that are ready, one for each durability."""
    with ExitStack() as open_stacks:
        stacks = []
        for durability in durabilities:
            stack = open_stacks.enter_context(Stack(parent, durability))
            stack.start()
            stack.wait_until_ready()
            stacks.append(stack)
        yield stacks
