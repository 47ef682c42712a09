"""W1: a chain alone on the system, what one hop takes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.floors import HopFloor
from scripts.benchmark.placement import across_cores
from scripts.benchmark.shapes import Shape, chain
from scripts.benchmark.stack import running_stacks

WARM_UPS = 3


@contextmanager
def lone_chain(bench: Bench) -> Iterator[Repetition]:
    shape = chain(bench.sizes.chain)
    with ExitStack() as open_ones:
        stacks = open_ones.enter_context(running_stacks(bench.folder, *bench.durabilities))
        engines = [open_ones.enter_context(BenchedEngine(stack)) for stack in stacks]
        floor = open_ones.enter_context(HopFloor(stacks[0].socket_path))
        for engine in engines:
            for _ in range(WARM_UPS):
                engine.run_one(shape)

        def repeat() -> dict[str, Reading]:
            rounds = [
                (floor.ms_per_hop(shape.size), *(hop_ms(engine, shape) for engine in engines))
                for _ in range(bench.sizes.chain_rounds)
            ]
            floor_ms, plain_ms, *durable_ms = (
                median(column) for column in zip(*rounds, strict=True)
            )
            readings = {"W1": Reading(plain_ms, floor_ms), "W1 apart": _apart()}
            if durable_ms:
                readings["W1 always"] = Reading(durable_ms[0], plain_ms)
            return readings

        def _apart() -> Reading:
            with across_cores(stacks[0]):
                rounds = [
                    (floor.ms_per_hop(shape.size), hop_ms(engines[0], shape))
                    for _ in range(bench.sizes.chain_rounds)
                ]
            floor_ms, plain_ms = (median(column) for column in zip(*rounds, strict=True))
            return Reading(plain_ms, floor_ms)

        yield repeat


def hop_ms(engine: BenchedEngine, shape: Shape) -> float:
    return engine.run_one(shape) * 1000 / shape.size
