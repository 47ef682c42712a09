"""Nodes that take too long."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from flowd.handlers.registry import built_in_registry
from flowd.workers.slots import Slots
from tests.flow import handlers
from tests.flow.engine import Engine, calls, node, until, workflow


@pytest.fixture
def begun(monkeypatch):
    """Nobody's time is over before the handler was called, however late a busy machine does it."""
    time_out = Slots._time_out

    def wait_for_the_call(slots, run):
        entry = run.prepared.entry
        if (entry.execution_id, entry.node_id, entry.attempt) in handlers.CALLS:
            time_out(slots, run)
        else:
            run.timer = slots._loop.call_later(0.001, slots._time_out, run)

    monkeypatch.setattr(Slots, "_time_out", wait_for_the_call)


def brief(timeout_s, one, **fields):
    return {**one, "timeout_s": timeout_s, **fields}


@pytest.mark.usefixtures("begun")
async def test_a_node_that_takes_too_long_fails_while_its_neighbours_finish(settings):
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.start(
            workflow(
                brief(0.05, node("async", handler="held")),
                brief(0.05, node("thread", handler="spin")),
                node("neighbour", handler="held"),
                node("after", ["async"]),
            )
        )

        async def both_failed():
            states = await engine.states(execution_id)
            return (states["async"], states["thread"]) == ("FAILED", "FAILED")

        await until(both_failed, "the time-outs")
        assert (await engine.states(execution_id))["neighbour"] == "RUNNING"
        handlers.GATES["neighbour"].set()
        await engine.end(execution_id)
        await until(lambda: handlers.SPUN == ["thread"], "the end of the thread")
        assert await engine.states(execution_id) == {
            "async": "FAILED",
            "thread": "FAILED",
            "neighbour": "COMPLETED",
            "after": "FAILED",
        }
        results = await engine.results(execution_id)
        assert results["async"] == {"error": "timed out: it took longer than 0.05 s"}


@pytest.mark.usefixtures("begun")
async def test_a_time_out_is_a_failure_that_is_tried_again(settings):
    retry = {"max_attempts": 2, "delay_s": 0.01, "on": ["timeout"]}
    async with Engine(settings) as engine, engine.ticking():
        execution_id = await engine.run(
            workflow(brief(0.05, node("A", handler="held"), retry=retry))
        )

        assert calls(execution_id) == ["A", "A"]
        error = (await engine.results(execution_id))["A"]["error"]
        assert error == "attempt 2 of 2: timed out: it took longer than 0.05 s"


async def test_a_delay_may_be_longer_than_a_time_out(settings):
    """It reported in once a second: with a time-out of a second or less every delay failed."""
    async with Engine(settings, registry=built_in_registry()) as engine, engine.ticking():
        execution_id = await engine.run(
            workflow(brief(0.05, node("A", handler="delay", seconds=0.1)))
        )

        assert await engine.states(execution_id) == {"A": "COMPLETED"}


async def test_a_heartbeat_begins_the_time_anew(settings):
    async with Engine(settings) as engine:
        execution_id = await engine.run(
            workflow(brief(2.0, node("A", handler="beat", beats=12, every_s=0.2)))
        )

        assert await engine.states(execution_id) == {"A": "COMPLETED"}


@pytest.mark.usefixtures("begun")
async def test_nobody_fails_while_threads_past_their_time_are_in_the_way(settings):
    """Others were taken, waited for a thread that was not free, and their time passed meanwhile."""
    two_slots = replace(settings, workers=replace(settings.workers, concurrency=2))
    async with Engine(two_slots, workers=1) as engine:
        stuck = await engine.start(
            workflow(*(brief(0.05, node(f"s{at}", handler="ignore_cancel")) for at in range(2)))
        )
        assert str(await engine.end(stuck)) == "FAILED"
        innocent = await engine.start(
            workflow(*(brief(2.0, node(f"n{at}", handler="echo_in_thread")) for at in range(4)))
        )
        # Longer than they may take: their time has not begun.
        await asyncio.sleep(2.4)
        assert set((await engine.states(innocent)).values()) == {"QUEUED"}
        for gate in ("s0", "s1"):
            handlers.GATES[gate].set()
        await engine.end(innocent)
        assert set((await engine.states(innocent)).values()) == {"COMPLETED"}
        assert [attempt for _, _, attempt in handlers.CALLS] == [1] * 6
