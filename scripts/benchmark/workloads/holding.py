"""W16: what limits, rates and queues cost, and that they are kept to.

A stack whose workers read three queues runs in turn with one that has the default alone. Beside
100,000 nodes that wait for a place, a chain is to run as without them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any, Final

import orjson

from flowd.store import open_store
from flowd.store.limits import Limit
from flowd.store.redis import keys
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.processes import Void
from scripts.benchmark.shapes import Shape, beside, chain, diamond
from scripts.benchmark.stack import Stack, running_stacks, wait_for
from scripts.benchmark.workloads.lone_chain import WARM_UPS, hop_ms
from scripts.benchmark.workloads.sleepers import WATCHED_S_PER_REST_S, scheduler_percent

_AT_ONCE: Final = 10
_PER_S: Final = 100.0
_PATIENCE_S: Final = 120.0
# The first line is of the section of the workers.
_CONFIG: Final = """\
queues = ["default", "gpu", "low"]

[handlers]
modules = ["scripts.benchmark.naps"]
"""


@contextmanager
def holding(bench: Bench) -> Iterator[Repetition]:
    sizes = bench.sizes
    shape, in_gpu = chain(sizes.chain), chain(sizes.chain, queue="gpu")
    naps, starts = (
        beside(count, "nap", limit=name)
        for count, name in ((sizes.naps, "ten"), (sizes.starts, "rate"))
    )
    with ExitStack() as open_ones:
        (stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        held = open_ones.enter_context(
            Stack(bench.folder, bench.durability, workers=4, extra_config=_CONFIG)
        )
        held.start()
        held.wait_until_ready()
        plain, engine = (open_ones.enter_context(BenchedEngine(one)) for one in (stack, held))
        _put(engine, Limit("ten", max=_AT_ONCE), Limit("rate", per_s=_PER_S), Limit("none", max=0))
        _put(engine, Limit("tenant", max=4))
        for _ in range(WARM_UPS):
            hop_ms(plain, shape)
            hop_ms(engine, shape)
            _run_s(engine, in_gpu)

        def repeat() -> dict[str, Reading]:
            readings = {
                "W16 limit": _limited(engine, naps),
                "W16 rate": _rated(engine, starts),
                "W16 keys": _keyed(engine, sizes.diamonds),
            }
            hops = [
                (
                    hop_ms(plain, shape),
                    hop_ms(engine, shape),
                    _run_s(engine, in_gpu) * 1000 / shape.size,
                )
                for _ in range(sizes.chain_rounds)
            ]
            plain_ms, three_ms, gpu_ms = (median(column) for column in zip(*hops, strict=True))
            readings["W16 three"] = Reading(three_ms, plain_ms)
            readings["W16 queue"] = Reading(gpu_ms, plain_ms)
            with _waiting(engine, sizes.held):
                beside_ms = median(hop_ms(engine, shape) for _ in range(sizes.chain_rounds))
                percent = scheduler_percent(held, WATCHED_S_PER_REST_S * sizes.rest_s)
            # On the same stack, and so with the same queues and workers.
            readings["W16 hop"] = Reading(beside_ms, three_ms)
            readings["W16 scheduler"] = Reading(percent)
            return readings

        yield repeat


def _put(engine: BenchedEngine, *limits: Limit) -> None:
    async def put() -> None:
        store = open_store(engine.settings)
        for one in limits:
            await store.tasks.limits.put(one)
        await store.close()

    asyncio.run(put())


def _run_s(engine: BenchedEngine, shape: Shape) -> float:
    """Seconds from the trigger to the end of an execution. Raises Void."""
    (execution_id,) = engine.submit(shape)
    begin = time.perf_counter()
    engine.trigger([execution_id])
    engine.wait_until_idle()
    seconds = time.perf_counter() - begin
    _check(engine, [execution_id])
    engine.clear()
    return seconds


def _check(engine: BenchedEngine, execution_ids: list[str]) -> None:
    found = set(engine.line.ask("MGET", *map(keys.status, execution_ids)))
    if found != {b"COMPLETED"}:
        raise Void(f"executions are {found}")


def _naps(engine: BenchedEngine, shape: Shape) -> list[Mapping[str, Any]]:
    """When each call of an execution began and ended, in the order of their begins. Raises Void."""
    (execution_id,) = engine.submit(shape)
    engine.trigger([execution_id])
    engine.wait_until_idle()
    _check(engine, [execution_id])
    outputs = engine.line.ask("MGET", *(keys.output(execution_id, one) for one in shape.node_ids))
    engine.clear()
    return sorted(map(orjson.loads, outputs), key=lambda one: one["begin"])


def _limited(engine: BenchedEngine, shape: Shape) -> Reading:
    """Beside what as many calls come to that follow each other without a pause. Raises Void."""
    naps = _naps(engine, shape)
    steps = sorted([(one["begin"], 1) for one in naps] + [(one["end"], -1) for one in naps])
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    if most > _AT_ONCE:
        raise Void(f"{most} calls at once where {_AT_ONCE} may be")
    seconds = max(one["end"] for one in naps) - naps[0]["begin"]
    called_s = sum(one["end"] - one["begin"] for one in naps)
    return Reading(len(naps) / seconds, len(naps) * _AT_ONCE / called_s)


def _rated(engine: BenchedEngine, shape: Shape) -> Reading:
    naps = _naps(engine, shape)
    return Reading((len(naps) - 1) / (naps[-1]["begin"] - naps[0]["begin"]), _PER_S)


def _keyed(engine: BenchedEngine, count: int) -> Reading:
    """Diamonds at once, each with a key of its own."""
    plain, keyed = diamond(), diamond(limit={"name": "tenant", "key": "{{ input.k }}"})
    plain_s = engine.run_many(plain, count)
    execution_ids = engine.submit(keyed, count)
    begin = time.perf_counter()
    engine.trigger(execution_ids, *(b'{"k":%d}' % at for at in range(count)))
    engine.wait_until_idle()
    keyed_s = time.perf_counter() - begin
    _check(engine, execution_ids)
    engine.clear()
    nodes = plain.size * count
    return Reading(nodes / keyed_s, nodes / plain_s)


@contextmanager
def _waiting(engine: BenchedEngine, count: int) -> Iterator[None]:
    """While so many nodes wait for a place of a limit that holds everybody."""
    shape = beside(min(count, 1000), "noop", limit="none")
    execution_ids = engine.submit(shape, max(1, count // 1000))
    engine.trigger(execution_ids)
    waiters = keys.waiters("none")
    all_of_them = len(execution_ids) * shape.size
    wait_for(lambda: engine.line.ask("ZCARD", waiters) == all_of_them, "all to wait", _PATIENCE_S)
    engine.keep(execution_ids, entries=0)
    try:
        yield
    finally:
        engine.keep([])
        engine.clear()
        engine.line.ask("DEL", waiters, keys.ACTIVE)
