"""W8: single nodes one after another over HTTP, from submit until the status says done."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.http_line import HttpLine, request
from scripts.benchmark.percentiles import percentile
from scripts.benchmark.shapes import Shape, single
from scripts.benchmark.stack import running_stacks

WARM_UPS = 20


@contextmanager
def http_single(bench: Bench) -> Iterator[Repetition]:
    shape = single()
    with ExitStack() as open_ones:
        (stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        engine = open_ones.enter_context(BenchedEngine(stack))
        line = open_ones.enter_context(HttpLine(stack.api_address()))
        _times_ms(engine, line, shape, WARM_UPS)

        def repeat() -> dict[str, Reading]:
            trips_ms, done_ms = _times_ms(engine, line, shape, bench.sizes.singles)
            p50 = percentile(done_ms, 50)
            return {
                "W8 p50": Reading(p50, percentile(trips_ms, 50)),
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
