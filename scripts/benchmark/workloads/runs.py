"""W13: runs of a saved diamond over HTTP, one a request and a thousand, beside submissions that are
triggered.

No worker takes anything meanwhile: what is compared is how executions are made and started.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import orjson

from flowd.store import open_store
from flowd.store.redis import keys
from flowd.store.saved import About
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.http_line import Address, Load, ask, request
from scripts.benchmark.processes import Partner, Void
from scripts.benchmark.shapes import Shape, diamond
from scripts.benchmark.stack import Stack

_NAME = "benched"
_PATH = f"/definitions/{_NAME}"
_STREAM = "workflow:tasks"
_INPUTS_A_REQUEST = 1_000
_REQUESTS = 10
_WARM_UP = 0.05


@contextmanager
def runs(bench: Bench) -> Iterator[Repetition]:
    sizes, shape = bench.sizes, diamond()
    inputs = min(_INPUTS_A_REQUEST, sizes.pairs_of_many)
    one, many = ({"input": {"n": 1}}, {"inputs": [{"n": at} for at in range(inputs)]})
    with ExitStack() as open_ones:
        stack = open_ones.enter_context(Stack(bench.folder, bench.durability, workers=0))
        stack.start()
        address = stack.api_address()
        engine = open_ones.enter_context(BenchedEngine(stack))
        partner = Partner(lambda: _load)
        open_ones.callback(partner.close)
        asyncio.run(_save(engine, shape))

        def rate(asked: bytes, times: int, made: int, *, triggers: bool = False) -> float:
            partner.order(address, sizes.clients, times, asked, triggers)
            load = partner.result()
            _check(engine, times * made, load.execution_ids)
            engine.clear()
            engine.line.ask("DEL", _STREAM, keys.ACTIVE, keys.EXECUTIONS)
            return times * made / load.seconds

        def repeat(share: float = 1.0) -> dict[str, Reading]:
            count = max(1, int(share * sizes.pairs_of_many))
            submission = request("POST", "/workflow", shape.definition)
            run = request("POST", f"{_PATH}/run", orjson.dumps(one))
            run_many = request("POST", f"{_PATH}/run", orjson.dumps(many))
            pairs = rate(submission, count, 1, triggers=True)
            return {
                "W13 run": Reading(rate(run, count, 1), pairs),
                "W13 inputs": Reading(
                    rate(run_many, max(1, int(share * _REQUESTS)), inputs), pairs
                ),
            }

        repeat(_WARM_UP)
        yield repeat


async def _save(engine: BenchedEngine, shape: Shape) -> None:
    store = open_store(engine.settings)
    about = About(0, shape.size, "")
    await store.saved.put(_NAME, shape.definition, shape.plan.digest, about)
    await store.close()


def _load(address: Address, clients: int, times: int, asked: bytes, triggers: bool) -> Load:
    return ask(address, min(clients, times), times, asked, triggers=triggers)


def _check(engine: BenchedEngine, count: int, execution_ids: list[str]) -> None:
    """Each was made, and the one node of it that can run was queued. Raises Void."""
    queued, active = engine.line.ask_all([("XLEN", _STREAM), ("SCARD", keys.ACTIVE)])
    if not len(set(execution_ids)) == queued == active == count:
        raise Void(f"{count} were asked for; {queued} were queued and {active} run")
