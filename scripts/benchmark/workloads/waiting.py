"""W11: a chain while ten thousand nodes are WAITING for an hour, and how late a wait ends.

The same chain runs in turn on a stack without any and on the one where they wait, so that both meet
the same noise. How late is the time from the date of a wait until its node has an entry again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from flowd.store.redis import keys
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.percentiles import percentile
from scripts.benchmark.shapes import Shape, chain, delay
from scripts.benchmark.stack import running_stacks, wait_for
from scripts.benchmark.workloads.lone_chain import WARM_UPS, hop_ms
from scripts.benchmark.workloads.sleepers import WATCHED_S_PER_REST_S, scheduler_percent

_WAITING_LIMIT_S = 60.0
_HOUR_S = 3600.0
# Apart enough that each is the only one that is due.
_DUE_EVERY_S = 0.02


@contextmanager
def waiting(bench: Bench) -> Iterator[Repetition]:
    sizes, shape = bench.sizes, chain(bench.sizes.chain)
    with ExitStack() as open_ones:
        stacks = open_ones.enter_context(
            running_stacks(bench.folder, bench.durability, bench.durability)
        )
        plain, engine = (open_ones.enter_context(BenchedEngine(one)) for one in stacks)
        kept = engine.submit(delay(_HOUR_S), sizes.sleepers)
        engine.trigger(kept)
        wait_for(lambda: _are_waiting(engine, kept), "all to wait", _WAITING_LIMIT_S)
        engine.keep(kept, entries=0)
        for _ in range(WARM_UPS):
            hop_ms(plain, shape)
            hop_ms(engine, shape)

        def repeat() -> dict[str, Reading]:
            rounds = [
                (hop_ms(plain, shape), hop_ms(engine, shape)) for _ in range(sizes.chain_rounds)
            ]
            plain_ms, beside_ms = (median(column) for column in zip(*rounds, strict=True))
            percent = scheduler_percent(stacks[1], WATCHED_S_PER_REST_S * sizes.rest_s)
            late_ms = _late_ms(plain, sizes.singles)
            return {
                "W11 hop": Reading(beside_ms, plain_ms),
                "W11 scheduler": Reading(percent),
                "W11 late": Reading(percentile(late_ms, 99), None, {"p50 ms": median(late_ms)}),
            }

        yield repeat


def _are_waiting(engine: BenchedEngine, execution_ids: list[str]) -> bool:
    found = engine.line.ask("MGET", *(keys.node(one, "A") for one in execution_ids))
    return all(state == b"WAITING" for state in found)


def _late_ms(engine: BenchedEngine, count: int) -> list[float]:
    """Of waits that end one after the other, while nothing else is to be done."""
    late: list[float] = []
    for first in range(0, count, 25):
        execution_ids: list[str] = []
        for at in range(min(25, count - first)):
            execution_ids += engine.submit(_delay_of(at))
        engine.trigger(execution_ids)
        wait_for(lambda: _are_waiting(engine, execution_ids), "all to wait", _WAITING_LIMIT_S)  # noqa: B023
        due = [_due_ms(engine, one) for one in execution_ids]
        engine.wait_until_idle()
        for execution_id, due_ms in zip(execution_ids, due, strict=True):
            record = engine.line.ask("HGET", keys.attempts(execution_id), "A")
            late.append(int(record.split()[1]) - due_ms)
        engine.clear()
        time.sleep(_DUE_EVERY_S)
    return late


def _delay_of(at: int) -> Shape:
    return delay(0.3 + at * _DUE_EVERY_S)


def _due_ms(engine: BenchedEngine, execution_id: str) -> float:
    return float(engine.line.ask("ZSCORE", keys.RETRIES, f"{execution_id} A"))
