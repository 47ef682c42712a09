"""kill -9 of a worker under load: the time until the node it ran starts again on another.

`python -m scripts.benchmark.kills 50` measures a flowd with one handler more, `hold`.
"""

from __future__ import annotations

import os
import signal
import statistics
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import orjson

from flowd.client import Client
from scripts.benchmark.stack import Stack

WORKERS = 4
LOADERS = 2
LIMIT_S = 60.0
HANDLERS = '[handlers]\nmodules = ["scripts.benchmark.hold"]\n'
LOAD = orjson.dumps(
    {"name": "load", "dag": {"nodes": [{"id": f"N{n}", "handler": "noop"} for n in range(20)]}}
)
VICTIM = orjson.dumps({"name": "victim", "dag": {"nodes": [{"id": "A", "handler": "hold"}]}})


class Measured:
    """A flowd under load in a folder of its own."""

    def __init__(self, flowd: Stack) -> None:
        self._flowd = flowd
        flowd.start()
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
        self._flowd.order("restart", name=name)
        self.wait_until_running()
        return float(second["at"] - killed_at)

    def wait_until_running(self) -> dict[str, Any]:
        while (status := self._flowd.wait_until_ready(LIMIT_S))["rolling"]:
            time.sleep(0.01)
        return status

    def stop(self) -> None:
        self._is_over.set()
        for loader in self._loaders:
            loader.join()

    def _start_of(self, execution_id: str, attempt: int) -> dict[str, Any]:
        path = self._flowd.folder / f"{execution_id}-{attempt}"
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
    folder = Path(tempfile.gettempdir())
    with Stack(folder, "always", workers=WORKERS, extra_config=HANDLERS) as flowd:
        measured = Measured(flowd)
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
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 50)
