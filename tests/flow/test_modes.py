"""What is done to an execution whose worker is in a mode that is rare: it works on afterwards.

A worker that was deaf for good after a cancellation, as it ran a node under suspicion, showed what
no other test had seen: each mode is crossed with each operation.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from flowd.errors import WrongState
from flowd.handlers.loading import open_registry
from flowd.orchestrator.executor import (
    cancel_execution,
    pause_execution,
    resume_execution,
    trigger_workflow,
)
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import recover_worker
from flowd.orchestrator.rerun import plan_rerun, rerun_execution
from flowd.store.redis import keys
from flowd.store.tasks import DEATHS_BEFORE_APART
from scripts.soaking.checker import find_violations
from tests.flow.engine import Engine, node, until, workflow
from tests.flow.test_suspects import own  # noqa: F401


class Bench:
    """`A` waits until it is let go, `B` is behind it."""

    def __init__(self, engine: Engine, folder: Path, redis) -> None:
        self.engine, self.folder, self.redis = engine, folder, redis
        self.ids: list[str] = []

    async def start(self, *, timeout_s: float = 60.0) -> str:
        first = {**node("A", handler="wait_async"), "timeout_s": timeout_s}
        execution_id = await self.engine.start(workflow(first, node("B", ["A"], handler="say")))
        self.ids.append(execution_id)
        return execution_id

    def has_begun(self) -> bool:
        return (self.folder / "started-A").exists()

    def let_go(self) -> None:
        (self.folder / "open-A").touch()


# Modes: each begins before the node does, or while it runs.


async def plain(bench: Bench) -> None:
    await bench.engine.add_worker()
    await until(bench.has_begun, "the start of A")


async def suspect(bench: Bench) -> None:
    """It was there when workers died, and runs apart."""
    session = bench.engine.store.tasks.open_session("dead")
    for _ in range(DEATHS_BEFORE_APART):
        (entry,) = (await session.complete_and_claim((), (), (), 1)).entries
        await bench.engine.store.tasks.requeue_entry(entry.name, "dead", is_death=True)
    await session.close()
    await bench.engine.store.tasks.retire_worker("dead")
    await plain(bench)


async def paused(bench: Bench) -> None:
    await plain(bench)
    await pause_execution(bench.engine.store, bench.ids[0])


async def draining(bench: Bench) -> None:
    """It ends, and another takes what it leaves."""
    await plain(bench)
    bench.engine.workers[0].stop()
    await bench.engine.add_worker()


async def full(bench: Bench) -> None:
    await plain(bench)
    bench.redis.config_set("maxmemory", 1)


async def recovering(bench: Bench) -> None:
    """Its work was given away, and it does not know yet."""
    await plain(bench)
    (late,) = await bench.engine.store.tasks.owners()
    store = bench.engine.store
    await recover_worker(store, Plans(store), late, "the test says so", is_blamed=False)


# Operations.


async def cancel(bench: Bench) -> None:
    await cancel_execution(bench.engine.store, bench.ids[0])


async def delete(bench: Bench) -> None:
    finished = bench.engine.store.finished
    assert await finished.delete_execution(bench.ids[0]) in ("RUNNING", "PAUSED")
    await cancel(bench)
    assert await finished.delete_execution(bench.ids.pop(0)) == "deleted"


async def pause(bench: Bench) -> None:
    await pause_execution(bench.engine.store, bench.ids[0])


async def time_out(bench: Bench) -> None:
    """The node's time is over; see `start`."""

    async def has_failed() -> bool:
        states = await bench.engine.states(bench.ids[0])
        return states["A"] == "FAILED"

    await until(has_failed, "the end of its time")


async def rerun(bench: Bench) -> None:
    store, execution_id = bench.engine.store, bench.ids[0]
    with pytest.raises(WrongState):
        await plan_rerun(store, execution_id, "A")
    await cancel(bench)
    bench.redis.config_set("maxmemory", 0)
    bench.ids.append(await rerun_execution(store, await plan_rerun(store, execution_id, "A")))
    await trigger_workflow(store, bench.ids[-1])


MODES = (plain, suspect, paused, draining, full, recovering)
OPERATIONS = (cancel, delete, pause, time_out, rerun)


@pytest.mark.parametrize(
    ("mode", "operation"),
    [
        pytest.param(
            mode,
            operation,
            id=f"{mode.__name__} and {operation.__name__}",
            marks=[] if mode is suspect else [pytest.mark.thorough],
        )
        for mode in MODES
        for operation in OPERATIONS
    ],
)
async def test_a_worker_works_on_whatever_is_done_in_whatever_mode(
    own,  # noqa: F811
    redis,
    mode,
    operation,
):
    engine = Engine(own, workers=0, registry=open_registry(own))
    bench = Bench(engine, own.handlers.folder, redis)
    try:
        async with engine, engine.ticking():
            await bench.start(timeout_s=1.5 if operation is time_out else 60.0)
            await mode(bench)
            await operation(bench)
            redis.config_set("maxmemory", 0)
            bench.let_go()
            for execution_id in redis.smembers(keys.ACTIVE):
                await resume_execution(engine.store, execution_id)
            other = await engine.run(workflow(node("C", handler="say")))
            for execution_id in bench.ids:
                await engine.end(execution_id)
            await until(lambda: redis.xlen("workflow:tasks") == 0, "the end of the entries")
        assert find_violations(redis, [*bench.ids, other]) == []
    finally:
        redis.config_set("maxmemory", 0)
