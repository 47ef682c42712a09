"""What is due by the clock never waits for what heals."""

from __future__ import annotations

import asyncio
import itertools

import pytest

from flowd.errors import StoreUnavailable
from flowd.scheduler import lane
from flowd.scheduler.scheduler import Scheduler
from flowd.store.redis import keys
from tests.flow.engine import Engine, node, until, workflow

RETRY = {"max_attempts": 2, "delay_s": 0.05}


@pytest.mark.parametrize("manner", ["hangs", "fails"])
async def test_a_duty_that_never_ends_holds_up_neither_retries_nor_other_duties(
    settings, redis, monkeypatch, manner
):
    """One execution whose resumption never ended once took every retry and every dead worker's
    nodes along with it, for ever."""
    monkeypatch.setattr(lane, "PATIENCE_S", 0.05)
    async with Engine(settings) as engine, engine.ticking() as scheduler_store:
        runs = itertools.count()

        async def bad(*_arguments):
            next(runs)
            if manner == "hangs":
                await asyncio.Event().wait()
            raise RuntimeError("a defect")

        monkeypatch.setattr(scheduler_store.tasks, "leases", bad)
        await until(lambda: next(runs) > 0, "the bad duty")
        retried = await engine.run(workflow({**node("A", handler="fail"), "retry": RETRY}))
        assert (await engine.store.nodes.records(retried, ["A"]))["A"].attempt == 2

        # A duty behind the bad one.
        redis.zadd(keys.CONTINUATIONS, {"nonsense": 1})
        monkeypatch.setattr("flowd.scheduler.continuations.OVERDUE_S", 0.0)
        await until(lambda: redis.zcard(keys.CONTINUATIONS) == 0, "the duty behind the bad one")
        # One before it.
        redis.delete(keys.LEASES)
        redis.set(keys.LEASES, "no hash")
        await until(lambda: redis.type(keys.LEASES) != "string", "the duty before the bad one")


async def test_an_outage_is_said_once_by_both_lanes_and_so_is_its_end(settings, monkeypatch, capfd):
    async with Engine(settings, workers=0) as engine:
        scheduler = Scheduler(engine.store)
        capfd.readouterr()
        with monkeypatch.context() as away:

            async def unanswered(*_arguments):
                raise StoreUnavailable("nobody is there")

            away.setattr(lane.Lane, "tick", unanswered)
            assert [await scheduler.tick(now_s) for now_s in (1.0, 2.0)] == [False, False]
        assert await scheduler.tick(3.0)

    said = capfd.readouterr().err
    assert (said.count("redis.lost"), said.count("redis.reconnected")) == (1, 1)


async def test_while_redis_is_away_nobody_sleeps_on_it_and_both_lanes_forget_what_they_saw(
    store, monkeypatch
):
    scheduler = Scheduler(store)
    paused, asked = [], []

    async def unanswered(*_arguments):
        raise StoreUnavailable("nobody is there")

    async def wait(_seconds):
        asked.append(1)

    monkeypatch.setattr(lane.Lane, "pause", lambda self: paused.append(self))
    monkeypatch.setattr(store.retries, "wait_for_change", wait)
    with monkeypatch.context() as away:
        away.setattr(lane.Lane, "tick", unanswered)
        assert not await scheduler._tick(scheduler._clock, 1.0)
    assert paused == [scheduler._clock, scheduler._healing]
    await scheduler._wait()
    assert asked == []

    assert await scheduler._tick(scheduler._clock, 2.0)
    await scheduler._wait()
    assert asked == [1]
