"""A watched call does what the call does, and shows when the loop is inside of it."""

from __future__ import annotations

import asyncio

import pytest

from flowd.pulse import Pulse, Vitals
from flowd.workers.watched_call import watched


async def test_the_loop_is_inside_during_a_step_and_outside_between_two() -> None:
    vitals = Vitals()
    seen: list[tuple[str, ...]] = []
    gate = asyncio.Event()

    async def call() -> int:
        seen.append(vitals.suspects)
        await gate.wait()
        seen.append(vitals.suspects)
        return 7

    task = asyncio.ensure_future(watched(call(), Pulse(vitals=vitals), "1700000000000-3"))
    await asyncio.sleep(0)
    assert (seen, vitals.suspects) == ([("1700000000000-3",)], ())
    gate.set()
    assert await task == 7
    assert (seen[1], vitals.suspects) == (("1700000000000-3",), ())


async def test_what_it_raises_comes_through() -> None:
    vitals = Vitals()

    async def call() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await watched(call(), Pulse(vitals=vitals), "1-0")
    assert vitals.suspects == ()


async def test_a_cancellation_reaches_it() -> None:
    told = False

    async def call() -> None:
        nonlocal told
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            told = True
            raise

    task = asyncio.ensure_future(watched(call(), Pulse(), "1-0"))
    await asyncio.sleep(0)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert told


def test_threads_are_suspects_while_the_loop_is_inside_of_nothing() -> None:
    vitals = Vitals()
    pulse = Pulse(vitals=vitals)
    first, second = pulse.enter_thread("1-0"), pulse.enter_thread("1700000000000-7")
    assert set(vitals.suspects) == {"1-0", "1700000000000-7"}

    pulse.enter("5-5")
    assert vitals.suspects == ("5-5",)
    pulse.leave()
    pulse.leave_thread(first)
    assert vitals.suspects == ("1700000000000-7",)
    pulse.leave_thread(second)
    assert vitals.suspects == ()


def test_more_threads_than_there_are_places_are_suspects_all() -> None:
    vitals = Vitals()
    pulse = Pulse(vitals=vitals)

    places = [pulse.enter_thread(f"{number}-1") for number in range(1, 400)]

    assert vitals.suspects == ()
    for place in places:
        pulse.leave_thread(place)
    pulse.enter_thread("1-1")
    assert vitals.suspects == ("1-1",)


def test_a_suspect_is_named_with_its_queue() -> None:
    """Two streams give equal ids."""
    vitals = Vitals()
    vitals.enter("gpu/1700000000000-3")
    assert vitals.suspects == ("gpu/1700000000000-3",)
    vitals.leave()
    places = [vitals.enter_thread(name) for name in ("5-0", "gpu/5-0", "low/5-0", "gpu/6-1")]
    assert set(vitals.suspects) == {"5-0", "gpu/5-0", "low/5-0", "gpu/6-1"}
    for place in places:
        vitals.leave_thread(place)
    assert vitals.suspects == ()


def test_nobody_is_suspected_where_the_queue_of_one_is_not_known() -> None:
    vitals = Vitals()
    for number in range(40):
        vitals.enter_thread(f"queue{number}/5-0")
    assert vitals.suspects == ()
