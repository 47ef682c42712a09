"""W2 and W3: many nodes at once, of one execution or of a thousand."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from statistics import median
from types import MappingProxyType

from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.floors import DrainFloor
from scripts.benchmark.shapes import diamond, fan, half_diamond
from scripts.benchmark.stack import running_stacks

WARM_UPS = 2


def one_fan(bench: Bench) -> AbstractContextManager[Repetition]:
    shape = fan(bench.sizes.fan)
    return _crowd(
        bench, "W2", shape.size, lambda engine: engine.run_one(shape), bench.sizes.fan_rounds
    )


def many_diamonds(bench: Bench) -> AbstractContextManager[Repetition]:
    shape, skipping, count = diamond(), half_diamond(), bench.sizes.diamonds
    return _crowd(
        bench,
        "W3",
        shape.size * count,
        lambda engine: engine.run_many(shape, count),
        bench.sizes.diamond_rounds,
        {"W3 skipped": lambda engine: engine.run_many(skipping, count)},
    )


@contextmanager
def _crowd(
    bench: Bench,
    figure: str,
    nodes: int,
    run_s: Callable[[BenchedEngine], float],
    rounds: int,
    beside: Mapping[str, Callable[[BenchedEngine], float]] = MappingProxyType({}),
) -> Iterator[Repetition]:
    """`run_s` runs `nodes` nodes, and so does each `beside`; the floors end as many."""
    with ExitStack() as open_ones:
        stacks = open_ones.enter_context(running_stacks(bench.folder, *bench.durabilities))
        engines = [open_ones.enter_context(BenchedEngine(stack)) for stack in stacks]
        floors = [
            open_ones.enter_context(DrainFloor(stacks[0].socket_path, processes))
            for processes in (2, 1)
        ]
        for engine in engines:
            for _ in range(WARM_UPS):
                run_s(engine)

        def repeat() -> dict[str, Reading]:
            rates = [
                (
                    *(floor.nodes_per_s(nodes) for floor in floors),
                    *(nodes / run_s(engines[0]) for run_s in beside.values()),
                    *(nodes / run_s(engine) for engine in engines),
                )
                for _ in range(rounds)
            ]
            drain_2, drain_1, *others = (median(one) for one in zip(*rates, strict=True))
            also, (plain, *durable) = others[: len(beside)], others[len(beside) :]
            readings = {figure: Reading(plain, drain_2, {"drain-1 nodes/s": drain_1})}
            readings |= {one: Reading(rate, plain) for one, rate in zip(beside, also, strict=True)}
            if durable:
                readings[f"{figure} always"] = Reading(durable[0], plain)
            return readings

        yield repeat
