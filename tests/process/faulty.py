"""A flowd that meets faults, and the checks that hold after each of them."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any, TypeVar

from flowd.client import ApiError, Client, ConnectionFailed
from tests.daemon import PATIENCE_S, is_all_running, is_gone, wait_until, whole_lines
from tests.process.flowd_process import ENDED, Flowd, node

ROOT = Path(__file__).parents[2]

T = TypeVar("T")


class FaultyFlowd(Flowd):
    """The real `flowd`, with handlers made for faults."""

    module = "tests.process.faulty_flowd"

    def __init__(self, folder: Path, arguments: Any, **environ: str) -> None:
        super().__init__(folder, arguments, PYTHONPATH=str(ROOT), **environ)

    def calls(self, node_id: str | None = None) -> list[dict[str, Any]]:
        """The handler calls so far, in order."""
        path = self.folder / "calls"
        lines = whole_lines(path) if path.exists() else []
        calls = [json.loads(line) for line in lines]
        return [call for call in calls if node_id in (None, call["node"])]

    def wait_for_calls(self, count: int, node_id: str | None = None) -> list[dict[str, Any]]:
        wait_until(lambda: len(self.calls(node_id)) >= count, f"{count} calls of {node_id}")
        return self.calls(node_id)

    def open(self) -> None:
        """Let the nodes of `held` return."""
        (self.folder / "open").touch()

    def worker_of(self, call: dict[str, Any]) -> str:
        """The name of the worker that was called."""
        status = self.status()
        assert status is not None
        return next(str(one["name"]) for one in status["processes"] if one["pid"] == call["pid"])

    def node_states(self, execution_id: str) -> dict[str, str]:
        prefix = f"workflow:{execution_id}:node:"
        with self.redis as redis:
            keys = [key for key in redis.scan_iter(f"{prefix}*") if not key.endswith(":output")]
            return {key.removeprefix(prefix): redis.get(key) for key in keys}

    def results(self, execution_id: str) -> dict[str, Any]:
        return dict(self.api.execution_results(execution_id))

    def insist(self, ask: Callable[[Client], T]) -> T:
        """The answer, after asking as often as it takes."""
        until_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                with Client(self.url) as client:
                    return ask(client)
            except (ConnectionFailed, ApiError) as error:
                assert not isinstance(error, ApiError) or error.status >= 500, error
                assert time.monotonic() < until_s, error
                time.sleep(0.02)

    def until_failed(self, points: Collection[str], most: int) -> Iterator[int]:
        """Numbers, no more than that, until each of these failpoints has gone off."""
        for number in range(most):
            if all((self.folder / f"failed-{name}").exists() for name in points):
                return
            yield number
        raise AssertionError(sorted(path.name for path in self.folder.glob("failed-*")))

    def check_and_stop(self) -> None:
        """What holds after every fault: nothing is left over, in Redis or on the machine."""
        self.wait_for_status(is_all_running, "every child to be back")
        with self.redis as redis:
            for execution_id in redis.smembers("workflows:active"):
                status = redis.get(f"workflow:{execution_id}:status")
                assert status not in ENDED, f"{execution_id} is {status} and active"
        known = len(self.wait_until_running()["processes"])
        wait_until(lambda: len(self.supervisor.children()) == known, "strays to be gone")
        self.check_descriptors()
        self.signal(signal.SIGTERM)
        assert self.wait_for_end() == 0
        # What a worker's handlers had started is killed by the kernel, a moment after its worker.
        wait_until(lambda: not self.survivors(), "every process of the session to be gone")


def breed(flowd: FaultyFlowd) -> tuple[str, int, list[int]]:
    """A node whose handler has started two programs: its execution, its worker, their pids."""
    execution_id = flowd.submit_and_trigger(node("A", handler="breed"))
    (call,) = flowd.wait_for_calls(1)
    bred = flowd.folder / "bred"
    wait_until(lambda: bred.exists() and len(bred.read_text().split()) == 2, "both children")
    grandchildren = [int(pid) for pid in bred.read_text().split()]
    assert not any(map(is_gone, grandchildren))
    return execution_id, call["pid"], grandchildren
