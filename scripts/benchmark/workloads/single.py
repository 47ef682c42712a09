"""W5: single nodes one after another, from submit to done through the store, without HTTP: in two
calls, and run in one, as most people do.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import NamedTuple

import uvloop

from flowd.orchestrator.executor import submit_workflow, trigger_workflow
from flowd.orchestrator.runs import run_workflow
from flowd.store import Store, open_store
from flowd.workflow.ids import new_execution_id
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.floors import round_trip_s
from scripts.benchmark.percentiles import percentile
from scripts.benchmark.placement import across_cores
from scripts.benchmark.shapes import Shape, single
from scripts.benchmark.stack import Stack, running_stacks

WARM_UPS = 20
_TRIPS = 200


class Times(NamedTuple):
    """Seconds: a bare round trip just before, until submitted, until triggered, until done."""

    round_trip_s: float
    submitted_s: float
    triggered_s: float
    done_s: float


@contextmanager
def single_node(bench: Bench) -> Iterator[Repetition]:
    shape = single()
    with ExitStack() as open_ones:
        (stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        engine = open_ones.enter_context(BenchedEngine(stack))
        runner = open_ones.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        store = open_store(engine.settings)
        open_ones.callback(lambda: runner.run(store.close()))
        runner.run(run_some(engine, store, shape, WARM_UPS))
        runner.run(run_some_in_one_call(engine, store, shape, WARM_UPS))

        def repeat() -> dict[str, Reading]:
            times = runner.run(run_some(engine, store, shape, bench.sizes.singles))
            runs = runner.run(run_some_in_one_call(engine, store, shape, bench.sizes.singles))
            trips, submitted, triggered, done = zip(*times, strict=True)
            p50 = percentile(done, 50) * 1000
            parts = {
                "ms until submitted": median(submitted) * 1000,
                "ms until triggered": median(triggered) * 1000,
                "ms a round-trip across cores": _round_trip_across_cores_ms(engine, stack),
            }
            return {
                "W5 p50": Reading(p50, median(trips) * 1000, parts),
                "W5 p99": Reading(percentile(done, 99) * 1000, p50),
                "W5 run": Reading(median(runs) * 1000, p50),
            }

        yield repeat


async def run_some(engine: BenchedEngine, store: Store, shape: Shape, count: int) -> list[Times]:
    engine.begin_to_count()
    ids, times = [], []
    for _ in range(count):
        trip_s = round_trip_s(engine.line)
        begin = time.perf_counter()
        execution_id = await submit_workflow(store, shape.workflow)
        submitted = time.perf_counter()
        # Not waited for: it costs this process one write, and the server a look-up.
        engine.expect_end(shape, execution_id)
        await trigger_workflow(store, execution_id)
        triggered = time.perf_counter()
        # Nothing else lives on this loop, so that it may be blocked until the end.
        done = engine.await_end(shape, execution_id)
        ids.append(execution_id)
        times.append(Times(trip_s, submitted - begin, triggered - begin, done - begin))
    engine.check(shape, ids)
    engine.clear()
    return times


async def run_some_in_one_call(
    engine: BenchedEngine, store: Store, shape: Shape, count: int
) -> list[float]:
    """Seconds until done, of a definition that was checked before."""
    engine.begin_to_count()
    ids, times = [], []
    for _ in range(count):
        execution_id = new_execution_id(time.time_ns() // 10**6)
        begin = time.perf_counter()
        engine.expect_end(shape, execution_id)
        await run_workflow(store, shape.definition, shape.plan, execution_id=execution_id)
        times.append(engine.await_end(shape, execution_id) - begin)
        ids.append(execution_id)
    engine.check(shape, ids)
    engine.clear()
    return times


def _round_trip_across_cores_ms(engine: BenchedEngine, stack: Stack) -> float:
    """The dearer kind: left alone, client and server share a core, and meet in a tenth of it.

    A workflow cannot do without it, because a third process takes part.
    """
    with across_cores(stack):
        return median(round_trip_s(engine.line) for _ in range(_TRIPS)) * 1000
