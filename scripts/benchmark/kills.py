"""kill -9 of a worker under load: the time until the node it ran starts again on another.

`python -m scripts.benchmark.kills 50` measures; with `--stack` it is the flowd that is measured,
with one handler more, `hold`, which says where it runs and waits.
"""

from __future__ import annotations

import asyncio
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from flowd.client import Client
from flowd.handlers import registry
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler
from flowd.supervisor.asking import ControlUnavailable, ask

WORKERS = 4
LOADERS = 2
LIMIT_S = 60.0
CONFIG = f"""
[api]
port = 0
[redis]
mode = "embedded"
port = 0
data_dir = "data"
[workers]
count = {WORKERS}
"""
LOAD = orjson.dumps(
    {"name": "load", "dag": {"nodes": [{"id": f"N{n}", "handler": "noop"} for n in range(20)]}}
)
VICTIM = orjson.dumps({"name": "victim", "dag": {"nodes": [{"id": "A", "handler": "hold"}]}})


@handler("hold")
async def hold(_config: dict[str, Any], context: HandlerContext) -> dict[str, Any]:
    started = {"attempt": context.attempt, "pid": os.getpid(), "at": time.monotonic()}
    path = Path(f"{context.execution_id}-{context.attempt}")
    path.with_suffix(".new").write_bytes(orjson.dumps(started))
    path.with_suffix(".new").rename(path)
    while context.attempt == 1:  # noqa: ASYNC110 - until it is killed
        await asyncio.sleep(1)
    return {}


def run_stack() -> None:
    from flowd.cli.main import main as flowd

    modules = {**registry._BUILT_IN_MODULES, "hold": "scripts.benchmark.kills"}
    registry._BUILT_IN_MODULES = modules  # type: ignore[misc]
    flowd(["start"], prog_name="flowd")


class Measured:
    """A flowd under load in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._data = folder / "data"
        (folder / "flowd.toml").write_text(CONFIG)
        with (folder / "log").open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "scripts.benchmark.kills", "--stack"],
                cwd=folder,
                env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
                stdout=log,
                stderr=log,
            )
        self._is_over = threading.Event()
        self._client = Client(str(self.wait_until_running()["api"]))
        self._loaders = [threading.Thread(target=self._load, daemon=True) for _ in range(LOADERS)]
        for loader in self._loaders:
            loader.start()
        self.executions = 0

    def kill_once(self) -> float:
        """Seconds from the kill of the worker that runs a node to the node's next start."""
        execution_id = self._client.submit(VICTIM, trigger=True)
        first = self._start_of(execution_id, 1)
        status = self.wait_until_running()
        name = next(one["name"] for one in status["processes"] if one["pid"] == first["pid"])
        killed_at = time.monotonic()
        os.kill(first["pid"], signal.SIGKILL)
        second = self._start_of(execution_id, 2)
        self.wait_until_running()
        # A fresh process has no history: the pauses after many deaths are not what is measured.
        ask(self._data, "restart", name=name)
        self.wait_until_running()
        return float(second["at"] - killed_at)

    def wait_until_running(self) -> dict[str, Any]:
        deadline = time.monotonic() + LIMIT_S
        while time.monotonic() < deadline:
            try:
                status = ask(self._data, "status")
            except ControlUnavailable:
                status = {"processes": [], "rolling": ["flowd"]}
            states = {one["state"] for one in status["processes"]}
            if states == {"RUNNING"} and not status["rolling"]:
                return status
            time.sleep(0.01)
        raise SystemExit((self._folder / "log").read_text()[-2000:])

    def stop(self) -> None:
        self._is_over.set()
        for loader in self._loaders:
            loader.join()
        self._process.send_signal(signal.SIGTERM)
        self._process.wait()

    def _start_of(self, execution_id: str, attempt: int) -> dict[str, Any]:
        path = self._folder / f"{execution_id}-{attempt}"
        deadline = time.monotonic() + LIMIT_S
        while not path.exists():
            if time.monotonic() > deadline:
                raise SystemExit(f"attempt {attempt} never started")
            time.sleep(0.001)
        started: dict[str, Any] = orjson.loads(path.read_bytes())
        return started

    def _load(self) -> None:
        while not self._is_over.is_set():
            self._client.submit(LOAD, trigger=True)
            self.executions += 1
            time.sleep(0.01)


def main(kills: int) -> None:
    with tempfile.TemporaryDirectory(prefix="flowd-kills-") as folder:
        measured = Measured(Path(folder))
        try:
            took_ms = sorted(1000 * measured.kill_once() for _ in range(kills))
        finally:
            measured.stop()
    p99 = took_ms[min(len(took_ms) - 1, round(0.99 * len(took_ms)))]
    print(
        f"{kills} kills of {WORKERS} workers under load ({measured.executions} executions of 20 "
        f"nodes meanwhile): the node starts again after {statistics.median(took_ms):.0f} ms "
        f"(p50), {p99:.0f} ms (p99), {took_ms[-1]:.0f} ms (most)"
    )


if __name__ == "__main__":
    if sys.argv[1:] == ["--stack"]:
        run_stack()
    else:
        main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
