"""W17: what it costs that a replica has to have everything before it counts.

Two stacks, each on a primary and its replica, run in turn: one waits for the replica, the other
does not. A ping is how much longer the least that a replica confirms takes than without that.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median
from typing import Final

from flowd.store.redis.replicated import CONFIRM_MS, FENCE
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.line import Command, Line, pack
from scripts.benchmark.processes import Void
from scripts.benchmark.shapes import chain, diamond
from scripts.benchmark.stack import Stack
from scripts.benchmark.workloads.lone_chain import WARM_UPS, hop_ms
from scripts.replica_set import ReplicaSet

# As many pings as a hop may take longer.
PINGS_MAX: Final = 1.5
_REST_S: Final = 0.0003
_CONFIRMED: Final[tuple[Command, ...]] = (FENCE, ("WAIT", 1, CONFIRM_MS))


class FollowedStack(Stack):
    """Its server has a replica, and writes no more to disk than another one of the bench."""

    def __init__(self, parent: Path, replicas: int) -> None:
        super().__init__(parent, variables={"FLOWD_REDIS__REPLICAS": str(replicas)})
        self._servers = ReplicaSet(self.folder)

    @property
    def socket_path(self) -> str:
        return self._servers.servers[0].socket_path

    def stop(self) -> int:
        try:
            return super().stop()
        finally:
            self._servers.__exit__()

    def _start_server(self) -> None:
        self._servers.__enter__()
        self._server = self._servers.servers[0].process


@contextmanager
def replicated(bench: Bench) -> Iterator[Repetition]:
    sizes, shape, many = bench.sizes, chain(bench.sizes.chain), diamond()
    nodes = many.size * sizes.diamonds
    with ExitStack() as open_ones:
        stacks = [open_ones.enter_context(FollowedStack(bench.folder, n)) for n in (0, 1)]
        for stack in stacks:
            stack.start()
            stack.wait_until_ready()
        plain, confirmed = (open_ones.enter_context(BenchedEngine(one)) for one in stacks)
        line = open_ones.enter_context(Line(stacks[1].socket_path))
        for engine in (plain, confirmed):
            for _ in range(WARM_UPS):
                hop_ms(engine, shape)
            engine.run_many(many, sizes.diamonds)

        def repeat() -> dict[str, Reading]:
            hops = [
                (ping_ms(line, sizes.chain), hop_ms(plain, shape), hop_ms(confirmed, shape))
                for _ in range(sizes.chain_rounds)
            ]
            ping, without, with_it = (median(column) for column in zip(*hops, strict=True))
            more = {
                "ping ms": ping,
                "hop without ms": without,
                "pings more": (with_it - without) / ping,
            }
            rates = [
                [nodes / engine.run_many(many, sizes.diamonds) for engine in (plain, confirmed)]
                for _ in range(sizes.diamond_rounds)
            ]
            plain_rate, confirmed_rate = (median(column) for column in zip(*rates, strict=True))
            return {
                "W17 hop": Reading(with_it, without + PINGS_MAX * ping, more),
                "W17 diamonds": Reading(confirmed_rate, plain_rate),
            }

        yield repeat


def ping_ms(line: Line, count: int) -> float:
    """How much longer the least that a replica confirms takes than without that. Each comes after a
    rest, as between two hops: a replica that has just answered would be awake still. Raises Void
    where the replica confirms nothing."""
    with_it, without = [], []
    for _ in range(count):
        without.append(_ms(line, (FENCE,)))
        with_it.append(_ms(line, _CONFIRMED))
    return median(with_it) - median(without)


def _ms(line: Line, commands: tuple[Command, ...]) -> float:
    packed = pack(commands)
    time.sleep(_REST_S)
    begin = time.perf_counter()
    line.send(packed)
    replies = [line.read() for _ in commands]
    taken_ms = (time.perf_counter() - begin) * 1000
    if len(commands) > 1 and replies[-1] < 1:
        raise Void("the replica did not confirm")
    return taken_ms
