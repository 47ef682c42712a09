"""W7: submissions and triggers a second over HTTP, by one client and by many, apart and in one.

Client, API, workers and server share the machine's cores. Each reading therefore says how much of a
core each of them took; what the API alone would do with a core of its own stands beside what a bare
application would.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from scripts.benchmark.bare_api import BareApi
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.http_line import Address, Load, ask, request, submit_and_trigger
from scripts.benchmark.processes import Partner, cpu_of
from scripts.benchmark.shapes import Shape, diamond
from scripts.benchmark.stack import Stack, running_stacks

_WARM_UP = 100
_OF_A_CORE = "a second of an API with a core of its own"


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
        bare = open_ones.enter_context(BareApi())
        apart, in_one = Partner(lambda: submit_and_trigger), Partner(lambda: _run)
        for partner in (apart, in_one):
            open_ones.callback(partner.close)

        def load(partner: Partner, clients: int, pairs: int) -> Reading:
            return _load(engine, stack, partner, shape, clients, pairs)

        def bare_pairs_per_core(clients: int, pairs: int) -> float:
            before = bare.cpu_s()
            apart.order(bare.address, clients, pairs, shape.definition)
            apart.result()
            return pairs / (bare.cpu_s() - before)

        for clients, pairs in crowds.values():
            load(apart, clients, min(pairs, _WARM_UP))
            load(in_one, clients, min(pairs, _WARM_UP))
            bare_pairs_per_core(clients, min(pairs, _WARM_UP))

        def repeat() -> dict[str, Reading]:
            readings = {figure: load(apart, *crowd) for figure, crowd in crowds.items()}
            many = readings["W7 x32"]
            fused = load(in_one, *crowds["W7 x32"])
            readings["W7 fused"] = fused._replace(floor=many.value)
            readings["W7 core"] = Reading(
                many.details[_OF_A_CORE], bare_pairs_per_core(*crowds["W7 x32"])
            )
            return readings

        yield repeat


def _run(address: Address, clients: int, times: int, body: bytes) -> Load:
    """Submissions that are triggered by the same request."""
    asked = request("POST", "/workflow?trigger=true", body)
    return ask(address, clients, times, asked, triggers=False)


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
    details[_OF_A_CORE] = rate / cores["api"]
    return Reading(rate, None, details)
