"""W6: a chain while ten thousand executions each wait for one long node.

The sleepers are nodes whose handler waits to be told, held by the two workers of a second stack: a
real `flowd start` with that one handler more, and with slots for all (`sleeping_stack`). The same
chain runs in turn there and on an ordinary stack, so that both meet the same noise.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median

from flowd.store.redis import keys
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.processes import cpu_of
from scripts.benchmark.shapes import chain, single
from scripts.benchmark.sleeping_stack import SLOTS_VARIABLE, WAIT
from scripts.benchmark.stack import Stack, running_stacks, wait_for
from scripts.benchmark.workloads.lone_chain import WARM_UPS, hop_ms

_ROOT = Path(__file__).parents[3]
_ASLEEP_LIMIT_S = 60.0
# Long enough, over five repetitions, to see what the scheduler does once a minute.
WATCHED_S_PER_REST_S = 1.2


@contextmanager
def sleepers(bench: Bench) -> Iterator[Repetition]:
    sizes = bench.sizes
    shape, sleeper = chain(sizes.chain), single(WAIT)
    with ExitStack() as open_ones:
        (plain_stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        plain = open_ones.enter_context(BenchedEngine(plain_stack))
        stack = open_ones.enter_context(_sleeping_stack(bench))
        engine = open_ones.enter_context(BenchedEngine(stack))
        sleeping = engine.submit(sleeper, sizes.sleepers)
        engine.trigger(sleeping)
        wait_for(lambda: _are_running(engine, sleeping), "all to sleep", _ASLEEP_LIMIT_S)
        engine.keep(sleeping)
        for _ in range(WARM_UPS):
            hop_ms(plain, shape)
            hop_ms(engine, shape)

        def repeat() -> dict[str, Reading]:
            rounds = [
                (hop_ms(plain, shape), hop_ms(engine, shape)) for _ in range(sizes.chain_rounds)
            ]
            plain_ms, beside_ms = (median(column) for column in zip(*rounds, strict=True))
            percent = scheduler_percent(stack, WATCHED_S_PER_REST_S * sizes.rest_s)
            return {
                "W6 hop": Reading(beside_ms, plain_ms),
                "W6 scheduler": Reading(percent),
            }

        yield repeat
        for pid in stack.pids("worker"):
            os.kill(pid, signal.SIGUSR1)
        engine.keep(())
        engine.wait_until_idle()
        engine.check_nodes(sleeper, sleeping)


@contextmanager
def _sleeping_stack(bench: Bench) -> Iterator[Stack]:
    variables = {
        "PYTHONPATH": str(_ROOT),
        # More than half: they need not share evenly, and one must stay free for the chain.
        SLOTS_VARIABLE: str(bench.sizes.sleepers * 6 // 10 + 2),
    }
    program = ("-m", "scripts.benchmark.sleeping_stack")
    with Stack(bench.folder, bench.durability, program=program, variables=variables) as stack:
        stack.start()
        stack.wait_until_ready()
        yield stack


def _are_running(engine: BenchedEngine, execution_ids: list[str]) -> bool:
    found = engine.line.ask("MGET", *(keys.node(one, "A") for one in execution_ids))
    return all(state == b"RUNNING" for state in found)


def scheduler_percent(stack: Stack, seconds: float) -> float:
    """Percent of one core while everybody sleeps."""
    pids = stack.pids("scheduler")
    begin, cpu_begin = time.perf_counter(), cpu_of(pids)
    time.sleep(seconds)
    return 100 * (cpu_of(pids) - cpu_begin) / (time.perf_counter() - begin)
