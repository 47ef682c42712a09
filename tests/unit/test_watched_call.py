"""A watched call does what the call does, and shows when the loop is inside of it."""

from __future__ import annotations

import asyncio

import pytest

from flowd.pulse import Pulse, Vitals
from flowd.workers.watched_call import watched


async def test_the_loop_is_inside_during_a_step_and_outside_between_two() -> None:
    vitals = Vitals()
    seen: list[str | None] = []
    gate = asyncio.Event()

    async def call() -> int:
        seen.append(vitals.inside)
        await gate.wait()
        seen.append(vitals.inside)
        return 7

    task = asyncio.ensure_future(watched(call(), Pulse(vitals=vitals), "1700000000000-3"))
    await asyncio.sleep(0)
    assert (seen, vitals.inside) == (["1700000000000-3"], None)
    gate.set()
    assert await task == 7
    assert (seen[1], vitals.inside) == ("1700000000000-3", None)


async def test_what_it_raises_comes_through() -> None:
    vitals = Vitals()

    async def call() -> None:
        await asyncio.sleep(0)
        raise RuntimeError("boom")

    with pytest.raises(RuntimeError, match="boom"):
        await watched(call(), Pulse(vitals=vitals), "1-0")
    assert vitals.inside is None


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
