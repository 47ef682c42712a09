"""A private flowd to measure: a real `flowd start`, on its own server and its own files.

Without persistence (`none`) the bench runs the server, with the configuration flowd writes for its
embedded one but no append-only file, and flowd joins it as an external Redis. With a durability of
flowd's own the embedded server is used as it is shipped.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType
from typing import Any, TypeVar
from urllib.parse import urlsplit

from flowd.config import Settings
from flowd.config.loading import load_settings
from flowd.supervisor.asking import ControlUnavailable, ask
from flowd.supervisor.embedded_server import EmbeddedServer, ProbeResult, find_binary, probe
from scripts.benchmark.processes import Void, clean_environment, end_with_parent

T = TypeVar("T")

NO_PERSISTENCE = "none"
DURABILITIES = (NO_PERSISTENCE, "everysec", "always")
START_LIMIT_S = 20.0
STOP_LIMIT_S = 30.0
_POLL_S = 0.005
_SERVER = "server"
FLOWD = ("-m", "flowd.cli.main")

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
count = 2
"""


def wait_for(find: Callable[[], T], what: str, limit_s: float = START_LIMIT_S) -> T:
    """What `find` returns once it is true. Raises Void after `limit_s`."""
    deadline = time.monotonic() + limit_s
    while not (found := find()):
        if time.monotonic() >= deadline:
            raise Void(f"waited {limit_s:g} s in vain for {what}")
        time.sleep(_POLL_S)
    return found


class Stack:
    """From `start` to `close` a flowd runs; its files are gone after that.

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
    ) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="stack-", dir=parent))
        self._log_path = self._folder / "log"
        self._durability = durability
        self._program = program
        self._server: subprocess.Popen[bytes] | None = None
        self._flowd: subprocess.Popen[bytes] | None = None
        self._environment = clean_environment() | dict(variables or {})
        config = self._folder / "flowd.toml"
        # A server of the bench's own keeps the file flowd would write; the value is overruled.
        written = "always" if durability == NO_PERSISTENCE else durability
        config.write_text(_CONFIG.format(port=port, durability=written))
        self._config_path = config

    @property
    def settings(self) -> Settings:
        """The stack's own, for a store of the bench."""
        settings = load_settings(self._config_path, environ={})
        return settings.with_redis_socket(self.socket_path)

    @property
    def socket_path(self) -> str:
        return str(self._folder / "data" / "redis.sock")

    def start(self) -> None:
        """Fork flowd; it need not be ready when this returns."""
        if self._durability == NO_PERSISTENCE:
            self._start_server()
            # flowd reads the same file, and joins this server instead of starting one.
            self._environment["FLOWD_REDIS__MODE"] = "external"
            self._environment["FLOWD_REDIS__URL"] = f"unix://{self.socket_path}"
        command = [sys.executable, *self._program, "start", "--config", str(self._config_path)]
        self._flowd = self._spawn(command)

    def _start_server(self) -> None:
        redis = load_settings(self._config_path, environ={}).redis
        EmbeddedServer(redis).prepare()
        command = [find_binary(), str(redis.data_dir / "redis.conf"), "--appendonly", "no"]
        self._server = self._spawn(command)
        wait_for(lambda: probe(self.socket_path) is ProbeResult.READY, "the server to answer")

    def _spawn(self, command: Sequence[str]) -> subprocess.Popen[bytes]:
        with self._log_path.open("ab") as log:
            return subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self._folder,
                env=self._environment,
                # Ctrl-C is for the bench, which then stops the stack in order.
                process_group=0,
                preexec_fn=end_with_parent,
            )

    def status(self) -> dict[str, Any] | None:
        """What `flowd status` knows, None while nobody answers. Raises Void when flowd ended."""
        assert self._flowd is not None
        if self._flowd.poll() is not None:
            raise Void(f"flowd ended with exit code {self._flowd.returncode}:\n{self._log_tail()}")
        try:
            return ask(self._folder / "data", "status")
        except ControlUnavailable:
            return None

    def wait_until_ready(self) -> None:
        def is_ready() -> bool:
            status = self.status()
            return status is not None and all(
                one["state"] == "RUNNING" for one in status["processes"]
            )

        wait_for(is_ready, "every process of flowd")

    def processes(self) -> dict[str, int]:
        """The pids of flowd's processes by name, the server not among them."""
        status = self.status()
        assert status is not None
        found = {one["name"]: one["pid"] for one in status["processes"] if one["role"] != _SERVER}
        return {"supervisor": status["pid"], **found}

    def pids(self, role: str) -> list[int]:
        status = self.status()
        assert status is not None
        return [one["pid"] for one in status["processes"] if one["role"] == role]

    def server_pid(self) -> int:
        if self._server is not None:
            return self._server.pid
        (found,) = self.pids(_SERVER)
        return found

    def api_address(self) -> tuple[str, int]:
        status = self.status()
        assert status is not None
        parts = urlsplit(status["api"])
        assert parts.hostname is not None
        assert parts.port is not None
        return parts.hostname, parts.port

    def close(self) -> None:
        """End everything and remove the files. Raises Void when flowd did not end in order."""
        try:
            code = _end(self._flowd)
            _end(self._server)
            if code:
                raise Void(f"flowd ended with exit code {code}:\n{self._log_tail()}")
        finally:
            shutil.rmtree(self._folder, ignore_errors=True)

    def _log_tail(self) -> str:
        return "\n".join(self._log_path.read_text(errors="replace").splitlines()[-20:])

    def __enter__(self) -> Stack:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        _error: BaseException | None,
        _trace: TracebackType | None,
    ) -> None:
        try:
            self.close()
        except Void:
            # Who is on the way out already has a better reason.
            if kind is None:
                raise


def _end(process: subprocess.Popen[bytes] | None) -> int:
    """Stop a process in order, or kill it when it does not; its exit code."""
    if process is None:
        return 0
    process.send_signal(signal.SIGTERM)
    try:
        return process.wait(STOP_LIMIT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        return process.wait()


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
