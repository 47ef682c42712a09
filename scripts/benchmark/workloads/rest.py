"""W4: flowd as it is shipped, with its own server: how soon it works, and what it costs at rest."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.http_line import HttpLine
from scripts.benchmark.processes import Void, cpu_of, pss_mib
from scripts.benchmark.shapes import single
from scripts.benchmark.stack import START_LIMIT_S, Stack

_KNOCK_EVERY_S = 0.001
# What the start has left to do (a first look of the scheduler, freed memory) is not rest.
_SETTLE_S = 1.0


@contextmanager
def rest(bench: Bench) -> Iterator[Repetition]:
    def repeat() -> dict[str, Reading]:
        port = _free_port()
        with Stack(bench.folder, "always", port=port) as stack:
            start_s, execution_id = _start_and_run_one(stack, port)
            stack.wait_until_ready()
            time.sleep(min(_SETTLE_S, bench.sizes.rest_s))
            cpu = _cpu_percent(stack, bench.sizes.rest_s)
            memory = {f"{name} MiB": pss_mib(pid) for name, pid in stack.processes().items()}
            with BenchedEngine(stack) as engine:
                engine.check(single(), [execution_id])
        return {
            "W4 start": Reading(start_s),
            "W4 cpu": Reading(sum(cpu.values()), None, cpu),
            "W4 memory": Reading(sum(memory.values()), None, memory),
        }

    yield repeat


def _start_and_run_one(stack: Stack, port: int) -> tuple[float, str]:
    """Seconds from the start of the program until the first workflow is done, asked over HTTP."""
    definition = single().definition
    begin = time.perf_counter()
    stack.start()
    with _connect(stack, port) as line:
        execution_id = line.run_workflow(definition)
        return time.perf_counter() - begin, execution_id


def _connect(stack: Stack, port: int) -> HttpLine:
    """As soon as somebody listens: what comes before the API serves waits in the queue."""
    deadline = time.monotonic() + START_LIMIT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(ConnectionRefusedError):
            return HttpLine(("127.0.0.1", port))
        time.sleep(_KNOCK_EVERY_S)
    raise Void(f"nobody listened within {START_LIMIT_S:g} s{stack.log_tail()}")


def _cpu_percent(stack: Stack, rest_s: float) -> dict[str, float]:
    """Percent of one core over `rest_s` seconds of rest, of flowd and of its server."""
    pids = {"flowd %": list(stack.processes().values()), "server %": [stack.server_pid()]}
    begin = time.perf_counter()
    before = {name: cpu_of(some) for name, some in pids.items()}
    time.sleep(rest_s)
    seconds = time.perf_counter() - begin
    return {name: 100 * (cpu_of(some) - before[name]) / seconds for name, some in pids.items()}


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return int(listener.getsockname()[1])
