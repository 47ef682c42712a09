"""W16: what limits, rates and queues cost, and that they are kept to.

What reads three queues runs in turn with what has the default one alone, and a limit of ten with
ten slots. Beside 100,000 nodes that wait for a place, a chain is to run as without them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median
from typing import Any, Final, NamedTuple

import orjson

from flowd.store import open_store
from flowd.store.limits import Limit
from flowd.store.redis import keys
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.processes import Void, cpu_of
from scripts.benchmark.shapes import Shape, beside, chain, diamond
from scripts.benchmark.stack import Stack, wait_for
from scripts.benchmark.workloads.lone_chain import WARM_UPS, hop_ms

_AT_ONCE: Final = 10
_PER_S: Final = 100.0
_PATIENCE_S: Final = 120.0
_DEVIATION_MAX: Final = 0.02
# The first lines are of the section of the workers.
_QUEUES: Final = 'queues = ["default", "gpu", "low"]\n'
_SLOTS: Final = f"concurrency = {_AT_ONCE // 2}\n"
_NAPS: Final = """
[handlers]
modules = ["scripts.benchmark.naps"]
"""


class _Stand(NamedTuple):
    """Flowds by what is special of them: nothing; ten slots; four workers; three queues; and those
    with 100,000 nodes that wait. All but the third have two workers."""

    plain: BenchedEngine
    slots: BenchedEngine
    four: BenchedEngine
    three: BenchedEngine
    held: BenchedEngine
    held_scheduler: Sequence[int]


@contextmanager
def holding(bench: Bench) -> Iterator[Repetition]:
    sizes = bench.sizes
    shape, in_gpu = chain(sizes.chain), chain(sizes.chain, queue="gpu")
    free, limited = beside(sizes.naps, "nap"), beside(sizes.naps, "nap", limit="ten")
    starts = beside(sizes.starts, "nap", limit="rate")
    with _standing(bench) as stand:
        _put(stand.plain, Limit("ten", max=_AT_ONCE), Limit("tenant", max=4))
        _put(stand.four, Limit("rate", per_s=_PER_S))
        _hold(stand.held, sizes.held)
        for _ in range(WARM_UPS):
            _hops(stand, shape, in_gpu)

        def repeat() -> dict[str, Reading]:
            slots, ten = _most_a_second(stand.slots, free), _most_a_second(stand.plain, limited)
            begin, cpu_begin = time.perf_counter(), cpu_of(stand.held_scheduler)
            rate = _rate(stand.four, starts)
            cpu_s = cpu_of(stand.held_scheduler) - cpu_begin
            percent = 100 * cpu_s / (time.perf_counter() - begin)
            hops = [_hops(stand, shape, in_gpu) for _ in range(sizes.chain_rounds)]
            plain_ms, three_ms, held_ms, run_ms, gpu_ms = map(median, zip(*hops, strict=True))
            return {
                "W16 limit": Reading(ten, slots),
                "W16 rate": Reading(rate, _PER_S),
                "W16 keys": _keyed(stand.plain, sizes.diamonds),
                "W16 diamonds": _diamonds(stand, sizes.diamonds, sizes.diamond_rounds),
                "W16 three": Reading(three_ms, plain_ms),
                "W16 queue": Reading(gpu_ms, run_ms),
                # With the same queues.
                "W16 hop": Reading(held_ms, three_ms),
                "W16 scheduler": Reading(percent),
            }

        yield repeat


@contextmanager
def _standing(bench: Bench) -> Iterator[_Stand]:
    with ExitStack() as open_ones:

        def started(config: str, workers: int = 2) -> Stack:
            stack = Stack(bench.folder, bench.durability, workers=workers, extra_config=config)
            open_ones.enter_context(stack)
            stack.start()
            stack.wait_until_ready()
            return stack

        held = started(_QUEUES)
        stacks = started(_NAPS), started(_SLOTS + _NAPS), started(_NAPS, 4), started(_QUEUES), held
        engines = (open_ones.enter_context(BenchedEngine(one)) for one in stacks)
        yield _Stand(*engines, held.pids("scheduler"))


def _hops(stand: _Stand, shape: Shape, in_gpu: Shape) -> tuple[float, ...]:
    """Milliseconds a hop: with one queue, with three, beside those that wait; then the first by the
    way of the last, which is in another queue."""
    alone = (hop_ms(one, shape) for one in (stand.plain, stand.three, stand.held))
    return (*alone, _run_ms(stand.plain, shape), _run_ms(stand.three, in_gpu))


def _put(engine: BenchedEngine, *limits: Limit) -> None:
    async def put() -> None:
        store = open_store(engine.settings)
        for one in limits:
            await store.tasks.limits.put(one)
        await store.close()

    asyncio.run(put())


def _run_ms(engine: BenchedEngine, shape: Shape) -> float:
    """Milliseconds a hop, whatever the queue. Raises Void."""
    (execution_id,) = engine.submit(shape)
    begin = time.perf_counter()
    engine.trigger([execution_id])
    engine.wait_until_idle()
    seconds = time.perf_counter() - begin
    _check(engine, [execution_id])
    engine.clear()
    return seconds * 1000 / shape.size


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


def _most_a_second(engine: BenchedEngine, shape: Shape) -> float:
    """Calls a second, of which as many are under way as may be. Raises Void where it is more."""
    naps = _naps(engine, shape)
    steps = sorted([(one["begin"], 1) for one in naps] + [(one["end"], -1) for one in naps])
    running = most = 0
    for _, step in steps:
        running += step
        most = max(most, running)
    if most > _AT_ONCE:
        raise Void(f"{most} calls at once where {_AT_ONCE} may be")
    seconds = max(one["end"] for one in naps) - naps[0]["begin"]
    return len(naps) / seconds


def _rate(engine: BenchedEngine, shape: Shape) -> float:
    """Starts a second. Raises Void where they are too many."""
    naps = _naps(engine, shape)
    rate = (len(naps) - 1) / (naps[-1]["begin"] - naps[0]["begin"])
    if len(naps) > _PER_S and rate > _PER_S * (1 + _DEVIATION_MAX):
        raise Void(f"{rate:.1f} starts a second where {_PER_S:g} may be")
    return rate


def _diamonds(stand: _Stand, count: int, rounds: int) -> Reading:
    """At once, by workers that read three queues, beside those that read one."""
    shape = diamond()
    pairs = [
        [one.run_many(shape, count) for one in (stand.three, stand.plain)] for _ in range(rounds)
    ]
    three_s, plain_s = map(median, zip(*pairs, strict=True))
    return Reading(shape.size * count / three_s, shape.size * count / plain_s)


def _keyed(engine: BenchedEngine, count: int) -> Reading:
    """Diamonds at once, each with a key of its own."""
    plain, keyed = diamond(), diamond(limit={"name": "tenant", "key": "{{ input.k }}"})
    plain_s = engine.run_many(plain, count)
    keyed_s = engine.run_many(keyed, count, *(b'{"k":%d}' % at for at in range(count)))
    nodes = plain.size * count
    return Reading(nodes / keyed_s, nodes / plain_s)


def _hold(engine: BenchedEngine, count: int) -> None:
    """Have so many nodes wait for a place of a limit that holds everybody."""
    _put(engine, Limit("none", max=0))
    shape = beside(min(count, 1000), "noop", limit="none")
    execution_ids = engine.submit(shape, max(1, count // 1000))
    engine.trigger(execution_ids)
    waiters = keys.waiters("none")
    all_of_them = len(execution_ids) * shape.size
    wait_for(lambda: engine.line.ask("ZCARD", waiters) == all_of_them, "all to wait", _PATIENCE_S)
    engine.keep(execution_ids, entries=0)
