"""W14: one execution with a thousand children of one node each, beside diamonds of as many nodes.

Counted are the nodes that wait for a child, and those of the children.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from flowd.store import open_store
from flowd.store.redis import keys
from flowd.store.saved import About
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.processes import Void
from scripts.benchmark.shapes import Shape, calling, diamond, single
from scripts.benchmark.stack import running_stacks

_NAME = "benched"
_WARM_UPS = 2


@contextmanager
def children(bench: Bench) -> Iterator[Repetition]:
    sizes = bench.sizes
    shape, beside = calling(_NAME, sizes.children), diamond()
    nodes, diamonds = 2 * sizes.children, max(1, 2 * sizes.children // beside.size)
    with ExitStack() as open_ones:
        (stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        engine = open_ones.enter_context(BenchedEngine(stack))
        asyncio.run(_save(engine))
        for _ in range(_WARM_UPS):
            engine.run_many(beside, diamonds)
            _run_s(engine, shape)

        def repeat() -> dict[str, Reading]:
            rates = [
                (
                    diamonds * beside.size / engine.run_many(beside, diamonds),
                    nodes / _run_s(engine, shape),
                )
                for _ in range(sizes.diamond_rounds)
            ]
            of_diamonds, of_children = (median(one) for one in zip(*rates, strict=True))
            return {"W14": Reading(of_children, of_diamonds)}

        yield repeat


async def _save(engine: BenchedEngine) -> None:
    store = open_store(engine.settings)
    shape = single()
    await store.saved.put(_NAME, shape.definition, shape.plan.digest, About(0, shape.size, ""))
    await store.close()


def _run_s(engine: BenchedEngine, shape: Shape) -> float:
    """Seconds from the trigger to the end of the parent; checked and cleared. Raises Void."""
    (execution_id,) = engine.submit(shape)
    begin = time.perf_counter()
    engine.trigger([execution_id])
    engine.wait_until_idle()
    seconds = time.perf_counter() - begin
    status, listed = engine.line.ask_all(
        [("GET", keys.status(execution_id)), ("HKEYS", keys.children(execution_id))]
    )
    ended = engine.line.ask("MGET", *(keys.status(one.decode()) for one in listed))
    if (status, len(listed), set(ended)) != (b"COMPLETED", shape.size, {b"COMPLETED"}):
        raise Void(f"{execution_id} is {status!r}, its {len(listed)} children {set(ended)}")
    engine.clear()
    return seconds
