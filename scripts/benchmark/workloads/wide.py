"""W9: ten thousand nodes in one execution, side by side and one after another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from statistics import median

from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine, memory_bytes
from scripts.benchmark.figures import Reading
from scripts.benchmark.floors import HopFloor
from scripts.benchmark.line import Line
from scripts.benchmark.shapes import Shape, chain, fan, mapped
from scripts.benchmark.stack import running_stacks

_SAMPLE_EVERY_S = 0.002
_SLOW_US = 1000
_SLOW_KEPT = 10_000
_SCRIPT_COMMANDS = (b"EVALSHA", b"EVAL", b"FCALL", b"EXEC")
_W2_ROUNDS = 3
_HOPS = 1000


@contextmanager
def wide_and_long(bench: Bench) -> Iterator[Repetition]:
    sizes = bench.sizes
    narrow, wide, long = fan(sizes.fan), fan(sizes.wide_fan), chain(sizes.long_chain)
    items = mapped(sizes.wide_fan)
    with ExitStack() as open_ones:
        (stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        engine = open_ones.enter_context(BenchedEngine(stack))
        floor = open_ones.enter_context(HopFloor(stack.socket_path))
        _log_slow_commands(engine)
        for shape in (narrow, wide, items):
            engine.run_one(shape)

        def repeat() -> dict[str, Reading]:
            w2_rate = median(_rate(engine, narrow) for _ in range(_W2_ROUNDS))
            wide_rate, wide_script_ms = _rate(engine, wide), _longest_script_ms(engine)
            floor_rate = 1000 / floor.ms_per_hop(min(_HOPS, long.size))
            long_rate, long_script_ms = _rate(engine, long), _longest_script_ms(engine)
            map_rate, map_script_ms = _rate(engine, items), _longest_script_ms(engine)
            longest = {
                "fan ms": wide_script_ms,
                "chain ms": long_script_ms,
                "map ms": map_script_ms,
            }
            return {
                "W9 fan": Reading(wide_rate, w2_rate),
                "W9 chain": Reading(long_rate, floor_rate),
                "W9 script": Reading(max(longest.values()), None, longest),
                "W9 bytes": _bytes_per_node(bench, wide),
                "W9 map": Reading(map_rate, wide_rate),
                "W9 item": _bytes_per_node(bench, items),
            }

        yield repeat


def _rate(engine: BenchedEngine, shape: Shape) -> float:
    """Nodes a second. The slow log begins anew with it."""
    engine.line.ask("SLOWLOG", "RESET")
    return shape.size / engine.run_one(shape)


def _log_slow_commands(engine: BenchedEngine) -> None:
    engine.line.ask("CONFIG", "SET", "slowlog-log-slower-than", _SLOW_US)
    engine.line.ask("CONFIG", "SET", "slowlog-max-len", _SLOW_KEPT)


def _longest_script_ms(engine: BenchedEngine) -> float:
    """Zero when none took a millisecond."""
    slow = engine.line.ask("SLOWLOG", "GET", _SLOW_KEPT)
    times_us = [one[2] for one in slow if one[3][0].upper() in _SCRIPT_COMMANDS]
    return max(times_us, default=0) / 1000


def _bytes_per_node(bench: Bench, shape: Shape) -> Reading:
    """On a server that has held nothing before, in a run of its own: looking costs time."""
    with ExitStack() as open_ones:
        (stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        engine = open_ones.enter_context(BenchedEngine(stack))
        empty = memory_bytes(engine.line)
        execution_ids = engine.submit(shape)
        pending = memory_bytes(engine.line) - empty
        with _Peak(engine) as peak:
            engine.trigger(execution_ids)
            engine.wait_until_idle()
        finished = memory_bytes(engine.line) - empty
        engine.check(shape, execution_ids)
    details = {
        "pending bytes": pending / shape.size,
        "finished bytes": finished / shape.size,
    }
    return Reading((peak.bytes - empty) / shape.size, None, details)


class _Peak:
    """The most memory the server's data took, as often as one can look."""

    def __init__(self, engine: BenchedEngine) -> None:
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)
        self.bytes = memory_bytes(engine.line)

    def _sample(self) -> None:
        with Line(self._engine.socket_path) as line:
            while not self._stop.wait(_SAMPLE_EVERY_S):
                self.bytes = max(self.bytes, memory_bytes(line))

    def __enter__(self) -> _Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()
