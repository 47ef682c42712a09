"""W15: ten thousand schedules of which few are due, and how late runs begin of many due at once.

How late is the time from that of the schedule until a worker begins its node.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from statistics import median

import uvloop

from flowd.orchestrator.schedules import put_schedule
from flowd.store import Store, open_store
from flowd.store.redis import keys
from flowd.store.saved import About
from flowd.workflow.ids import scheduled_id
from flowd.workflow.schedule import ScheduleDefinition
from scripts.benchmark.bench import Bench, Repetition
from scripts.benchmark.engine import BenchedEngine
from scripts.benchmark.figures import Reading
from scripts.benchmark.percentiles import percentile
from scripts.benchmark.shapes import single
from scripts.benchmark.stack import running_stacks, wait_for
from scripts.benchmark.workloads.sleepers import WATCHED_S_PER_REST_S, scheduler_percent

_NAME = "benched"
_AHEAD_MS = 2_000
_STARTED_LIMIT_S = 60.0
_EVERY = ScheduleDefinition(workflow=_NAME, every_s=7 * 86_400)


@contextmanager
def schedules(bench: Bench) -> Iterator[Repetition]:
    sizes = bench.sizes
    with ExitStack() as open_ones:
        (stack,) = open_ones.enter_context(running_stacks(bench.folder, bench.durability))
        engine = open_ones.enter_context(BenchedEngine(stack))
        runner = open_ones.enter_context(asyncio.Runner(loop_factory=uvloop.new_event_loop))
        store = open_store(engine.settings)
        open_ones.callback(lambda: runner.run(store.close()))
        runner.run(_make_daily(store, sizes.schedules))

        def repeat() -> dict[str, Reading]:
            percent = scheduler_percent(stack, WATCHED_S_PER_REST_S * sizes.rest_s)
            names = [f"at-once-{number}" for number in range(sizes.due_at_once)]
            time_ms = runner.run(_make_due(store, names))
            ids = [scheduled_id(name, time_ms) for name in names]
            wait_for(lambda: _have_ended(engine, ids), "all to run", _STARTED_LIMIT_S)
            late_ms = [_started_ms(engine, one) - time_ms for one in ids]
            for name in names:
                runner.run(store.schedules.delete(name))
            engine.clear()
            return {
                "W15 scheduler": Reading(percent),
                "W15 late": Reading(percentile(late_ms, 99), None, {"p50 ms": median(late_ms)}),
            }

        yield repeat


async def _make_daily(store: Store, count: int) -> None:
    shape = single()
    about = About(0, len(shape.plan.nodes), "")
    await store.saved.put(_NAME, shape.definition, shape.plan.digest, about)
    for number in range(count):
        cron = f"{number % 60} {number // 60 % 24} * * *"
        await put_schedule(store, f"daily-{number}", ScheduleDefinition(workflow=_NAME, cron=cron))


async def _make_due(store: Store, names: Sequence[str]) -> int:
    """All of them at one time, soon; that time."""
    time_ms = await store.schedules.now_ms() + _AHEAD_MS
    said = _EVERY.to_json()
    for name in names:
        await store.schedules.put(name, said, workflow=_NAME, revision="", next_ms=time_ms)
    return time_ms


def _have_ended(engine: BenchedEngine, execution_ids: Sequence[str]) -> bool:
    found = engine.line.ask("MGET", *map(keys.status, execution_ids))
    return all(status == b"COMPLETED" for status in found)


def _started_ms(engine: BenchedEngine, execution_id: str) -> int:
    _, queued_ms, waited_ms, *_ = engine.line.ask("HGET", keys.attempts(execution_id), "A").split()
    return int(queued_ms) + int(waited_ms)
