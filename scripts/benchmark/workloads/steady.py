"""W10: more work at once than a few moments take, so that what counts is the steady rate."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.floors import SocketFloor
from scripts.benchmark.shapes import chain, diamond
from scripts.benchmark.stack import running_stacks

_WARM_UP = 100


@contextmanager
def steady_state(bench: Bench) -> Iterator[Repetition]:
    sizes = bench.sizes
    crowds = {
        "W10 diamonds": (diamond(), sizes.diamonds_at_once),
        "W10 chains": (chain(sizes.chain), sizes.chains_at_once),
    }
    with ExitStack() as open_ones:
        (stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        engine = open_ones.enter_context(BenchedEngine(stack))
        floor = open_ones.enter_context(SocketFloor(stack.socket_path))
        for shape, count in crowds.values():
            engine.run_many(shape, min(count, _WARM_UP))

        def repeat() -> dict[str, Reading]:
            readings = {}
            for figure, (shape, count) in crowds.items():
                # As many nodes at once, each followed by as many, as in the workload.
                floor_rate = floor.nodes_per_s(count, shape.size)
                rate = shape.size * count / engine.run_many(shape, count)
                readings[figure] = Reading(rate, floor_rate)
            return readings

        yield repeat
