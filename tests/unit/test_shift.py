"""A shift while Redis goes and comes: what it asks then, what it says, and that it goes on."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flowd.config.loading import load_settings
from flowd.errors import MissingGroup, StoreError, StoreFull, StoreUnavailable, WrongType
from flowd.handlers.context import Resources
from flowd.handlers.registry import Handler
from flowd.pulse import Pulse
from flowd.store.entries import Entry
from flowd.store.tasks import Exchange
from flowd.workers import shift as shifts
from flowd.workers.node_run import PreparedNode
from flowd.workers.shift import DAMAGE_MET_MAX, Equipment, Shift
from tests.conftest import Lines
from tests.daemon import PATIENCE_S

AWAY = StoreUnavailable("nobody is there")


class Redis:
    """As a session of the store's, and as much of the store as a shift asks itself.

    `answers` are what the next calls come to, an error or how many entries; behind them, and where
    there are none, there is nothing to take.
    """

    queues = ("default",)
    is_due = False

    def __init__(self) -> None:
        self.answers: list[Exception | int] = []
        self.rings: list[Exception] = []
        self.owns: list[Exception] = []
        self.makes_groups: list[Exception] = []
        self.calls = 0
        self.looks = 0
        self.claims: list[int] = []
        self.sleeping = asyncio.Event()

    async def complete_and_claim(
        self, _completions: Any, _failures: Any, claims: Any, read_max: int, _room: int
    ) -> Exchange:
        self.calls += 1
        self.claims.append(len(claims))
        answer = self.answers.pop(0) if self.answers else 0
        if isinstance(answer, Exception):
            raise answer
        return Exchange(asked=read_max, claimed=["claimed"] * len(claims), halted_ms=0)

    async def wait_for_entry(self) -> list[Any]:
        if self.rings:
            raise self.rings.pop(0)
        self.sleeping.set()
        return await asyncio.Event().wait()  # type: ignore[func-returns-value]

    async def own_entries(self) -> list[Any]:
        self.looks += 1
        if self.owns:
            raise self.owns.pop(0)
        return []

    async def ensure_groups(self, _queues: Any) -> list[str]:
        if self.makes_groups:
            raise self.makes_groups.pop(0)
        return []

    async def send_logs(self) -> None:
        """Nothing was said."""

    async def close(self) -> None:
        """Nothing is open."""

    def sort(self, _completions: Any) -> None:
        """As they are."""


class Bench:
    def __init__(self, shift: Shift, redis: Redis) -> None:
        self.shift, self.redis = shift, redis
        self.work: asyncio.Task[None]

    async def rested(self) -> None:
        """Begin, and wait until it sleeps before the doorbell."""
        self.work = asyncio.create_task(self.shift.work())
        async with asyncio.timeout(PATIENCE_S):
            await self.redis.sleeping.wait()

    async def until(self, is_true: Callable[[], bool]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not is_true():
                assert not self.work.done(), self.work.exception()
                await asyncio.sleep(0)

    def nudge(self, *answers: Exception | int) -> None:
        """Have it ask once more: the answers it gets."""
        self.redis.answers += answers
        self.shift._is_hungry = True
        self.shift._wake.set()


@pytest.fixture
def bench(runner: asyncio.Runner, tmp_path: Any, monkeypatch: Any) -> Iterator[Bench]:
    monkeypatch.setattr(shifts, "growing_pauses", lambda: itertools.repeat(0.0))
    (tmp_path / "flowd.toml").touch()
    settings = load_settings(tmp_path / "flowd.toml", {}, {})

    async def make() -> Bench:
        redis = Redis()
        tasks = SimpleNamespace(open_session=lambda *_, **__: redis, queues=redis)
        store = SimpleNamespace(tasks=tasks, nodes=SimpleNamespace(default_policy=None))
        logs = SimpleNamespace(on_due=None)
        parts: Any = (store, None, None, Resources(), threads, Pulse(), None, logs)
        return Bench(Shift(Equipment(settings, *parts), "w1", lambda: None), redis)

    async def end(bench: Bench) -> None:
        bench.shift.drain(0.0)
        bench.work.cancel()
        with contextlib.suppress(asyncio.CancelledError, StoreError):
            await bench.work
        await bench.shift.close()

    with ThreadPoolExecutor(1) as threads:
        bench = runner.run(make())
        yield bench
        runner.run(end(bench))


def endless() -> PreparedNode:
    """A node whose call does not end by itself."""

    async def wait(_config: Any, _context: Any) -> None:
        await asyncio.Event().wait()

    config = SimpleNamespace(render=lambda _: {}, secrets=())
    node = SimpleNamespace(handler="endless", config=config, call_limit_s=lambda _: 600.0)
    plan = SimpleNamespace(bounds=SimpleNamespace(tokens=None))
    entry = Entry("1-0", "0" * 24, "a", 1, "plan", 0)
    handler = Handler("endless", wait, "async")
    return PreparedNode(entry, cast(Any, plan), cast(Any, node), handler, {}, cast(Any, None))


async def test_what_a_lost_reply_of_the_doorbell_has_brought_is_looked_for_once(
    bench: Bench,
) -> None:
    bench.redis.rings = [AWAY]

    await bench.rested()
    assert bench.redis.looks == 1
    for asked in range(3):
        before = bench.redis.calls
        bench.nudge()
        await bench.until(lambda before=before: bench.redis.calls > before)  # type: ignore[misc]
        assert bench.redis.looks == 1, asked


async def test_a_doorbell_that_was_refused_has_brought_nothing(bench: Bench) -> None:
    bench.redis.rings = [StoreFull("full")]
    await bench.rested()
    # The call behind it has asked for what is there.
    assert (bench.redis.looks, bench.redis.calls) == (0, 2)


async def test_a_group_that_is_gone_when_a_lost_reply_is_looked_for_ends_nothing(
    bench: Bench,
) -> None:
    bench.redis.rings, bench.redis.owns = [AWAY], [MissingGroup("no such group")]
    await bench.rested()
    assert not bench.work.done()


async def test_a_second_outage_is_said_as_the_first_was(bench: Bench, lines: Lines) -> None:
    await bench.rested()
    for _ in range(2):
        before = bench.redis.looks
        bench.nudge(AWAY)
        bench.redis.makes_groups = [AWAY, AWAY]
        await bench.until(lambda before=before: bench.redis.looks > before)  # type: ignore[misc]

    # Once for each, however often it was tried.
    assert [level for level, _ in lines.of("redis.lost")] == ["error"] * 2
    assert [level for level, _ in lines.of("redis.reconnected")] == ["warning"] * 2


async def test_what_runs_on_is_claimed_anew_behind_an_outage(bench: Bench) -> None:
    """The server may have lost it, or somebody has cancelled it meanwhile."""
    await bench.rested()
    bench.shift._slots.start(endless())
    await bench.until(lambda: 1 in bench.redis.claims)
    bench.shift._slots._is_again_timer_set = True
    (run,) = bench.shift._slots._runs.values()
    run.is_claimed = False
    bench.redis.claims.clear()

    bench.nudge(AWAY)

    await bench.until(lambda: bench.redis.claims[1:] == [1])


async def test_a_drain_with_nothing_left_to_end_waits_for_no_redis(bench: Bench) -> None:
    await bench.rested()
    bench.redis.makes_groups = [AWAY] * 1_000_000
    bench.nudge(AWAY)
    await bench.until(lambda: len(bench.redis.makes_groups) < 999_990)

    bench.shift.drain(None)
    async with asyncio.timeout(PATIENCE_S):
        await asyncio.shield(bench.work)


async def test_damage_that_was_mended_each_time_is_met_as_often_as_it_comes(bench: Bench) -> None:
    await bench.rested()
    for _ in range(3):
        before = bench.redis.calls
        bench.nudge(*[WrongType("no stream")] * DAMAGE_MET_MAX)
        for _ in range(DAMAGE_MET_MAX + 1):
            bench.nudge()
            seen = bench.redis.calls
            await bench.until(lambda seen=seen: bench.redis.calls > seen)  # type: ignore[misc]
        assert bench.redis.calls > before + DAMAGE_MET_MAX


async def test_damage_that_nobody_mends_ends_the_shift(bench: Bench) -> None:
    await bench.rested()
    bench.nudge(*[WrongType("no stream")] * (DAMAGE_MET_MAX + 1))
    with pytest.raises(WrongType):
        while True:
            bench.nudge()
            await asyncio.sleep(0)
            if bench.work.done():
                bench.work.result()


async def test_when_a_full_redis_has_room_again_work_is_asked_for(
    bench: Bench, lines: Lines
) -> None:
    await bench.rested()
    bench.shift.note_room(is_full=True)
    bench.shift.note_room(is_full=True)
    bench.shift._wake.set()
    await asyncio.sleep(0.01)
    before = bench.redis.calls

    bench.shift.note_room(is_full=False)

    await bench.until(lambda: bench.redis.calls > before)
    assert [level for level, _ in lines.of("reads.paused")] == ["error"]
    assert [level for level, _ in lines.of("reads.resumed")] == ["warning"]


@pytest.mark.parametrize("why", ["_is_redis_full", "_is_redis_away", "_is_draining"])
async def test_who_has_a_reason_to_ask_for_nothing_does_not_stall(bench: Bench, why: str) -> None:
    await bench.rested()
    bench.shift._asked_at_s -= 60.0
    assert bench.shift.stalled_s() >= 60.0
    setattr(bench.shift, why, True)

    assert bench.shift.stalled_s() < 60.0

    # What was no reason before is none when this one is over.
    setattr(bench.shift, why, False)
    assert bench.shift.stalled_s() < 60.0
