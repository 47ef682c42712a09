"""Row R9 of tests/README.md where no single execution is hit: keys that all executions share."""

from __future__ import annotations

import asyncio

import pytest

from flowd.errors import StoreUnavailable
from flowd.orchestrator.executor import submit_workflow
from flowd.scheduler.reconciler import Reconciler
from flowd.scheduler.repairs import Readmit
from flowd.store.redis import keys
from flowd.workers.worker import Worker
from scripts.soaking.checker import find_violations
from tests.flow import handlers
from tests.flow.engine import Engine, node, until, workflow

STREAM = "workflow:tasks"
SHARED = keys.shared_types(STREAM)


@pytest.mark.parametrize("key", SHARED)
async def test_r09_a_shared_key_of_another_type_is_set_aside_and_all_go_on(
    settings, redis, monkeypatch, capfd, key
):
    """Workers died of it, again and again, and left executions half ended behind."""
    monkeypatch.setattr("flowd.workers.lease.RENEW_EVERY_S", 0.1)
    retry = {"max_attempts": 2, "delay_s": 0.05}
    async with Engine(settings) as engine, engine.ticking():
        flaky = {**node("flaky", ["A"], handler="fail_first", times=1), "retry": retry}
        caught = await engine.start(workflow(node("A", handler="held"), node("B", ["A"]), flaky))
        await until(lambda: "A" in handlers.GATES, "the start of A")

        with redis.pipeline() as pipe:
            pipe.delete(key)
            pipe.rpush(key, "raw") if SHARED[key] != "list" else pipe.set(key, "raw")
            pipe.execute()

        async def aside() -> list[str]:
            return redis.keys(f"flowd:damaged:*:{key}")

        if key == keys.RETRIES_WAKEUP:
            # Who rings it makes it anew.
            await until(aside, "the damage aside")
        handlers.GATES["A"].set()

        assert str(await engine.end(caught)) == "COMPLETED"
        assert str(await engine.end(await start(engine))) == "COMPLETED"
        (kept,) = await until(aside, "the damage aside")
        assert b"raw" in redis.dump(kept)
        assert redis.type(key) in (SHARED[key], "none")
        await until(lambda: find_violations(redis, [caught]) == [], "everything in its place")
        assert not any(task.done() for task in engine._tasks), "a worker ended"
        await until(lambda: "key.quarantined" in "".join(capfd.readouterr()), "the log to say so")


async def start(engine: Engine) -> str:
    """As a client would, that asks again when it is told to."""

    async def try_to() -> str | None:
        try:
            return await engine.start(workflow(node("X"), node("Y", ["X"])))
        except StoreUnavailable:
            return None

    return await until(try_to, "a start")


@pytest.mark.parametrize("state", ["RUNNING", "PAUSED"])
async def test_r09_an_execution_taken_out_of_the_active_is_taken_in_again(settings, redis, state):
    async with Engine(settings) as engine, engine.ticking():
        caught = await engine.start(workflow(node("A", handler="held"), node("B", ["A"])))
        ended = await engine.run(workflow(node("X")))
        await submit_workflow(engine.store, workflow(node("Y")))
        await until(lambda: "A" in handlers.GATES, "the start of A")
        if state == "PAUSED":
            await engine.store.lifecycle.pause_execution(caught)
        redis.srem(keys.ACTIVE, caught)
        redis.zrem(keys.FINISHED, ended)
        # Its only entry with it: whoever is not among the active is not looked after.
        redis.xtrim(STREAM, maxlen=0, approximate=False)

        # A scheduler that begins looks at once, and each of them every minute.
        async with engine.ticking():
            await until(lambda: redis.smembers(keys.ACTIVE) == {caught}, "it to be active")
            await until(lambda: redis.zscore(keys.FINISHED, ended), "the other to be finished")
            handlers.GATES["A"].set()
            if state == "PAUSED":
                await engine.store.lifecycle.resume_execution(caught)
            assert str(await engine.end(caught)) == "COMPLETED"
    assert find_violations(redis, [caught, ended]) == []


DAMAGES = {
    "of another type": lambda redis, key: (redis.delete(key), redis.rpush(key, "raw")),
    "gone": lambda redis, key: redis.delete(key),
    "nonsense": lambda redis, key: (redis.delete(key), redis.set(key, b"{\xff\xfe")),
}
OWN_KEYS = ("", ":status", ":run", ":attempts", ":parked", ":node:A:output", ":node:B", ":node:C")


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("own_key", OWN_KEYS)
async def test_r09_a_damaged_key_of_an_execution_costs_that_one_at_most(
    settings, redis, monkeypatch, own_key, damage
):
    monkeypatch.setattr(Reconciler, "every_s", 0.1)
    monkeypatch.setattr(Readmit, "every_s", 0.1)
    async with Engine(settings) as engine, engine.ticking():
        hurt = await engine.start(
            workflow(
                node("A", x=1), node("B", ["A"], handler="held"), node("C", ["B"], v="{{ A.x }}")
            )
        )
        await until(lambda: "B" in handlers.GATES, "the start of B")
        well = await engine.start(workflow(node("X", handler="held"), node("Y", ["X"])))
        await until(lambda: "X" in handlers.GATES, "the start of X")

        DAMAGES[damage](redis, f"workflow:{hurt}{own_key}")
        # Whoever renders C has heard nothing of A.
        await engine.add_worker()
        await asyncio.gather(*map(engine.stop_worker, release(engine)))

        assert str(await engine.end(well)) == "COMPLETED"
        await until(lambda: not redis.exists(keys.ACTIVE), "the end of the other, or its loss")
        assert redis.get(f"workflow:{hurt}:status") in ("COMPLETED", "FAILED", None)
        await until(lambda: find_violations(redis, [well], excused=[hurt]) == [], "peace")
        assert not engine._tasks[-1].done(), "the worker ended"


def release(engine: Engine) -> list[Worker]:
    """Let the nodes that are held end; the workers that were there first."""
    for gate in handlers.GATES.values():
        gate.set()
    return engine.workers[:-1]
