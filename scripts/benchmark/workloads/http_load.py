"""W7: submissions and triggers a second over HTTP, by one client and by many.

Client, API, workers and server share the machine's cores. Each reading therefore says how much of a
core each of them took, and what the API alone would do with a core of its own.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.http_line import submit_and_trigger
from scripts.benchmark.processes import Partner, cpu_of
from scripts.benchmark.shapes import Shape, diamond
from scripts.benchmark.stack import Stack, running_stacks

_WARM_UP = 100


@contextmanager
def http_load(bench: Bench) -> Iterator[Repetition]:
    sizes, shape = bench.sizes, diamond()
    crowds = {
        "W7 x1": (1, sizes.pairs_of_one),
        "W7 x32": (sizes.clients, sizes.pairs_of_many),
    }
    with ExitStack() as open_ones:
        (stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        engine = open_ones.enter_context(BenchedEngine(stack))
        partner = Partner(lambda: submit_and_trigger)
        open_ones.callback(partner.close)
        for clients, pairs in crowds.values():
            _load(engine, stack, partner, shape, clients, min(pairs, _WARM_UP))

        def repeat() -> dict[str, Reading]:
            return {
                figure: _load(engine, stack, partner, shape, *crowd)
                for figure, crowd in crowds.items()
            }

        yield repeat


def _load(
    engine: BenchedEngine, stack: Stack, partner: Partner, shape: Shape, clients: int, pairs: int
) -> Reading:
    pids = {role: stack.pids(role) for role in ("api", "worker", "scheduler")}
    pids["server"] = [stack.server_pid()]
    engine.begin_to_count()
    before = {role: cpu_of(of_role) for role, of_role in pids.items()}
    partner.order(stack.api_address(), clients, pairs, shape.definition)
    load = partner.result()
    cores = {
        role: (cpu_of(of_role) - before[role]) / load.seconds for role, of_role in pids.items()
    }
    cores["client"] = load.client_cpu_s / load.seconds
    engine.wait_until_idle()
    engine.check(shape, load.execution_ids)
    engine.clear()
    rate = pairs / load.seconds
    details = {f"{role} cores": share for role, share in cores.items()}
    details["pairs/s of an API with a core of its own"] = rate / cores["api"]
    return Reading(rate, None, details)
