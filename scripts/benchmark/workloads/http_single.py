"""W8: single nodes one after another over HTTP, from submit until the status says done.

Beside what its parts take: two requests that need no store, and the same workflow without HTTP.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import uvloop

from flowd.store import open_store
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.http_line import HttpLine, request
from scripts.benchmark.percentiles import percentile
from scripts.benchmark.shapes import Shape, single
from scripts.benchmark.stack import running_stacks
from scripts.benchmark.workloads.single import run_some

WARM_UPS = 20


@contextmanager
def http_single(bench: Bench) -> Iterator[Repetition]:
    shape = single()
    with ExitStack() as open_ones:
        (stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        engine = open_ones.enter_context(BenchedEngine(stack))
        line = open_ones.enter_context(HttpLine(stack.api_address()))
        runner = open_ones.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        store = open_store(engine.settings)
        open_ones.callback(lambda: runner.run(store.close()))
        runner.run(run_some(engine, store, shape, WARM_UPS))
        _times_ms(engine, line, shape, WARM_UPS)

        def repeat() -> dict[str, Reading]:
            trips_ms, done_ms = _times_ms(engine, line, shape, bench.sizes.singles)
            bare = runner.run(run_some(engine, store, shape, bench.sizes.singles))
            p50, trip_ms = percentile(done_ms, 50), percentile(trips_ms, 50)
            bare_ms = percentile([one.done_s for one in bare], 50) * 1000
            parts = {"ms a GET /health": trip_ms, "ms without HTTP": bare_ms}
            return {
                "W8 p50": Reading(p50, 2 * trip_ms + bare_ms, parts),
                "W8 p99": Reading(percentile(done_ms, 99), p50),
            }

        yield repeat


def _times_ms(
    engine: BenchedEngine, line: HttpLine, shape: Shape, count: int
) -> tuple[list[float], list[float]]:
    """Of a request that needs no store, and of a workflow, again and again in turn."""
    health = request("GET", "/health")
    trips_ms, done_ms, execution_ids = [], [], []
    engine.begin_to_count()
    for _ in range(count):
        begin = time.perf_counter()
        line.ask(health)
        trips_ms.append((time.perf_counter() - begin) * 1000)
        begin = time.perf_counter()
        execution_ids.append(line.run_workflow(shape.definition))
        done_ms.append((time.perf_counter() - begin) * 1000)
    engine.check(shape, execution_ids)
    engine.clear()
    return trips_ms, done_ms
