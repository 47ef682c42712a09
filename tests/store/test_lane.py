"""What is due runs together, and no duty that fails or does not end stops the others."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace

import pytest

from flowd.diagnosis import readiness
from flowd.diagnosis.doctor import examine
from flowd.errors import StoreUnavailable, WrongType
from flowd.scheduler import lane as lanes
from flowd.scheduler.duty import BACKOFF_S_MAX, Duty, backoff_s
from flowd.scheduler.lane import Lane
from flowd.store.troubles import Trouble
from tests.daemon import PATIENCE_S


@pytest.fixture(autouse=True)
def punctual(monkeypatch):
    """Duties take no time, however slow the machine is: they are due by their own pauses alone."""
    monkeypatch.setattr(lanes, "time", SimpleNamespace(monotonic=lambda: 0.0))


class Noted(Duty):
    """Writes down each run; `outcome` is what it does or returns then."""

    def __init__(self, name, runs, outcome=None):
        self.name = name
        self.every_s = 10.0
        self.outcome = outcome
        self._runs = runs

    async def run(self, _now_s):
        self._runs.append(self.name)
        if isinstance(self.outcome, Exception):
            raise self.outcome
        if isinstance(self.outcome, asyncio.Event):
            await self.outcome.wait()
            return None
        return self.outcome


async def test_duties_run_in_their_order_when_they_are_due(store):
    runs = []
    eager = Noted("eager", runs, 0.0)
    lane = Lane(store, [Noted("first", runs), eager, Noted("last", runs)])

    await lane.tick(0.0)
    await lane.tick(5.0)
    await lane.tick(11.0)
    eager.outcome = None
    await lane.tick(12.0)
    eager.hurry()
    await lane.tick(12.5)

    assert runs == ["first", "eager", "last", "eager", "first", "eager", "last", "eager", "eager"]


async def test_a_duty_that_fails_is_named_backs_off_and_stops_no_other(store, lines):
    runs = []
    bad = Noted("bad", runs, RuntimeError("a defect"))
    lane = Lane(store, [bad, Noted("good", runs)])
    bad.every_s = 0.0

    for now_s in (0.0, 0.5, 1.5, 2.5, 4.0):
        await lane.tick(now_s)

    assert runs == ["bad", "good", "bad", "bad"]
    # The third failure in a row is not said: the more seldom, the longer it lasts.
    assert [facts["failures"] for _, facts in lines.of("duty.failed")] == [1, 2]
    assert await store.health.troubles.duties() == [Trouble("bad", "RuntimeError: a defect")]
    checks, _ = await readiness.check(store)
    assert checks["duties"] == {"ok": False, "failing": {"bad": "RuntimeError: a defect"}}
    found = await examine(store, pause_s=0)
    violations = [one for check in found.checks for one in check.violations]
    assert violations == ["the duty `bad` of a scheduler: RuntimeError: a defect"]

    bad.outcome = None
    await lane.tick(100.0)

    assert await store.health.troubles.duties() == []
    checks, _ = await readiness.check(store)
    assert checks["duties"] == {"ok": True, "failing": {}}


async def test_a_duty_that_does_not_end_is_left_behind_and_broken_off(store, monkeypatch):
    monkeypatch.setattr(lanes, "PATIENCE_S", 0.02)
    runs = []
    for overrun_s in (1_000.0, 0.05):
        monkeypatch.setattr(lanes, "OVERRUN_S", overrun_s)
        runs.clear()
        lane = Lane(store, [Noted("endless", runs, asyncio.Event()), Noted("good", runs)])
        await lane.tick(0.0)
        assert runs == ["endless", "good"]
        if overrun_s > 1:
            assert lane._running, "the others have waited for its end"
    async with asyncio.timeout(PATIENCE_S):
        while lane._running:
            await asyncio.sleep(0.01)
            await lane.tick(0.0)

    assert await store.health.troubles.duties() == [
        Trouble("endless", "it did not end within 0.05 s")
    ]
    await lane.tick(11.0)
    assert runs == ["endless", "good", "endless", "good"]


async def test_a_duty_that_is_hurried_while_it_runs_runs_again_at_the_next_tick(store):
    runs = []

    class Hurried(Noted):
        async def run(self, now_s):
            await super().run(now_s)
            if len(runs) == 1:
                self.hurry()

    lane = Lane(store, [Hurried("hurried", runs)])
    for now_s in (0.0, 0.1, 0.2):
        await lane.tick(now_s)
    assert runs == ["hurried"] * 2


async def test_what_is_damaged_in_redis_is_tried_again_at_the_next_tick(store):
    """Another duty mends it there, and nobody waits for a pause."""
    runs = []
    lane = Lane(store, [Noted("bad", runs, WrongType("no hash"))])
    for now_s in (0.0, 0.1, 0.2):
        await lane.tick(now_s)
    assert runs == ["bad"] * 3


async def test_a_duty_that_has_gone_well_begins_its_failures_anew(store, lines, monkeypatch):
    cleared = []
    clear = store.health.troubles.clear_duty

    async def clearing(name):
        cleared.append(name)
        await clear(name)

    monkeypatch.setattr(store.health.troubles, "clear_duty", clearing)
    bad = Noted("bad", [])
    lane = Lane(store, [bad])
    for now_s, outcome in enumerate((RuntimeError("a defect"), None, None, RuntimeError("again"))):
        bad.outcome = outcome
        await lane.tick(100.0 * now_s)

    assert cleared == ["bad"]
    assert [facts["failures"] for _, facts in lines.of("duty.failed")] == [1, 1]


async def test_a_tick_that_is_broken_off_takes_its_duties_along(store):
    has_begun = asyncio.Event()

    class Endless(Noted):
        async def run(self, _now_s):
            has_begun.set()
            await asyncio.Event().wait()

    lane = Lane(store, [Endless("endless", [])])
    tick = asyncio.create_task(lane.tick(0.0))
    async with asyncio.timeout(PATIENCE_S):
        await has_begun.wait()
    (running,) = lane._running.values()

    tick.cancel()

    with pytest.raises(asyncio.CancelledError):
        await tick
    with pytest.raises(asyncio.CancelledError):
        await running


async def test_while_redis_is_away_the_tick_says_so_and_no_duty_is_blamed(store):
    runs = []
    lane = Lane(store, [Noted("first", runs, StoreUnavailable("gone")), Noted("last", runs)])

    for now_s in (0.0, 0.1):
        with pytest.raises(StoreUnavailable):
            await lane.tick(now_s)

    assert runs == ["first", "last", "first"]
    assert await store.health.troubles.duties() == []


async def test_while_all_wait_for_an_answer_a_tick_says_that_there_was_none(store, monkeypatch):
    monkeypatch.setattr(lanes, "PATIENCE_S", 0.01)
    frozen = asyncio.Event()
    waiting = [Noted(name, [], frozen) for name in ("first", "last")]
    lane = Lane(store, waiting)

    assert not await lane.tick(0.0)
    assert not await lane.tick(0.1)
    frozen.set()
    async with asyncio.timeout(PATIENCE_S):
        while lane._running:
            await asyncio.sleep(0.01)
            await lane.tick(0.2)
    # One that takes its time is no server that does not answer.
    frozen.clear()
    assert await Lane(store, [*waiting, Noted("quick", [])]).tick(20.0)
    frozen.set()


async def test_what_another_scheduler_has_reported_is_cleared_by_one_that_can(store):
    await store.health.troubles.report_duty("good", "it failed there")
    await Lane(store, [Noted("good", [])]).tick(0.0)
    assert await store.health.troubles.duties() == []


def test_pauses_grow_to_a_minute():
    assert [backoff_s(failures) for failures in (1, 2, 3, 6, 7, 1_000)] == [1, 2, 4, 32, 60, 60]
    assert BACKOFF_S_MAX == 60


async def test_what_is_due_at_once_is_asked_at_once(store):
    """Each waits for the other: neither would run alone."""
    met = asyncio.Barrier(2)

    class Meeting(Duty):
        name = "meeting"

        async def run(self, _now_s):
            await met.wait()
            return 60.0

    lane = Lane(store, [Meeting(), Meeting()])

    async with asyncio.timeout(PATIENCE_S):
        await lane.tick(0.0)

    assert met.n_waiting == 0
    assert {duty.due_at_s > 0 for duty in lane._duties} == {True}
