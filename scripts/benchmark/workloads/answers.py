"""W12: a node that waits for a signal, from the answer to the end of the node behind it.

Without HTTP, and in turn with W5's single node, of which it is about one half: a commit, a claim.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial

import uvloop

from flowd.orchestrator.signals import send_signal
from flowd.store import Store, open_store
from flowd.store.redis import keys
from flowd.workflow.signals import Signal
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.percentiles import percentile
from scripts.benchmark.processes import Void
from scripts.benchmark.shapes import Shape, gated, single
from scripts.benchmark.stack import running_stacks, wait_for
from scripts.benchmark.workloads.single import WARM_UPS, run_some

_WAITING_LIMIT_S = 30.0


@contextmanager
def answers(bench: Bench) -> Iterator[Repetition]:
    plain, shape = single(), gated()
    with ExitStack() as open_ones:
        (stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        engine = open_ones.enter_context(BenchedEngine(stack))
        runner = open_ones.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        store = open_store(engine.settings)
        open_ones.callback(lambda: runner.run(store.close()))
        runner.run(run_some(engine, store, plain, WARM_UPS))
        _answer_some(runner, engine, store, shape, WARM_UPS)

        def repeat() -> dict[str, Reading]:
            singles = runner.run(run_some(engine, store, plain, bench.sizes.singles))
            single_ms = percentile([one.done_s for one in singles], 50) * 1000
            took_s = _answer_some(runner, engine, store, shape, bench.sizes.singles)
            p50 = percentile(took_s, 50) * 1000
            return {
                "W12 p50": Reading(p50, single_ms),
                "W12 p99": Reading(percentile(took_s, 99) * 1000, p50),
            }

        yield repeat


def _answer_some(
    runner: asyncio.Runner, engine: BenchedEngine, store: Store, shape: Shape, count: int
) -> list[float]:
    """Seconds from the answer to the end, of one execution after the other."""
    took_s = []
    for execution_id in engine.submit(shape, count):
        engine.trigger([execution_id])
        gate = keys.node(execution_id, shape.node_ids[0])
        wait_for(partial(_waits, engine, gate), "the gate to wait", _WAITING_LIMIT_S)
        engine.expect_end(shape, execution_id)
        begin = time.perf_counter()
        runner.run(send_signal(store, shape.plan, execution_id, shape.node_ids[0], Signal(True)))
        took_s.append(engine.await_end(shape, execution_id) - begin)
        status = engine.line.ask("GET", keys.status(execution_id))
        if status != b"COMPLETED":
            raise Void(f"{execution_id} is {status!r}")
    engine.clear()
    return took_s


def _waits(engine: BenchedEngine, gate: str) -> bool:
    return bool(engine.line.ask("GET", gate) == b"WAITING")
