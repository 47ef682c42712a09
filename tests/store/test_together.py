"""What is asked for together is answered by one call, and each has its own answer."""

from __future__ import annotations

import asyncio

import pytest

from flowd.errors import StoreUnavailable
from flowd.store.redis.together import Together
from tests.daemon import PATIENCE_S


class Calls:
    """Answers each with itself; two at most to a call. Notes what was asked by which."""

    def __init__(self) -> None:
        self.made: list[tuple[str, list[int]]] = []
        self.has_begun = asyncio.Event()
        self.is_away = False
        self.answers_max: int | None = None
        self.together = Together[str, int, int](self._call, lambda _: 2)

    async def _call(self, key, asked):
        self.made.append((key, list(asked)))
        self.has_begun.set()
        await asyncio.sleep(0)
        if self.is_away:
            raise StoreUnavailable("away")
        return asked[: self.answers_max]

    def ask(self, *numbers, key="a"):
        return [asyncio.create_task(self.together.ask(key, number)) for number in numbers]


async def test_those_under_one_key_share_calls_and_each_has_its_own_answer():
    calls = Calls()

    answers = await asyncio.gather(*calls.ask(1, 2, 3), *calls.ask(4, key="b"))

    assert answers == [1, 2, 3, 4]
    assert calls.made == [("a", [1, 2]), ("b", [4]), ("a", [3])]


async def test_who_is_cancelled_before_the_call_asks_for_nothing():
    calls = Calls()
    asked = calls.ask(1, 2, 3)
    await asyncio.sleep(0)
    asked[1].cancel()

    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert [answers[0], answers[2]] == [1, 3]
    assert calls.made == [("a", [1]), ("a", [3])]


async def test_who_is_cancelled_during_the_call_takes_no_answer_of_another():
    calls = Calls()
    asked = calls.ask(1, 2)
    await calls.has_begun.wait()
    asked[0].cancel()

    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert answers[1] == 2
    assert calls.made == [("a", [1, 2])]


async def test_where_a_call_fails_everybody_hears_it_and_may_ask_again():
    calls = Calls()
    calls.is_away = True

    answers = await asyncio.gather(*calls.ask(1, 2, 3), return_exceptions=True)

    assert [type(one) for one in answers] == [StoreUnavailable] * 3
    calls.is_away = False
    assert await calls.together.ask("a", 4) == 4


@pytest.mark.parametrize("turns", range(3))
async def test_nobody_waits_on_for_a_call_that_was_broken_off(turns):
    """It may be cancelled before it begins, or on its way."""
    calls = Calls()
    asked = calls.ask(1, 2, 3)
    await asyncio.sleep(0)
    (call,) = calls.together._calls
    for _ in range(turns):
        await asyncio.sleep(0)
    call.cancel()

    async with asyncio.timeout(PATIENCE_S):
        answers = await asyncio.gather(*asked, return_exceptions=True)
        assert StoreUnavailable in {type(one) for one in answers}
        assert await calls.together.ask("a", 4) == 4


async def test_too_few_answers_are_an_error_to_who_waits_for_more():
    calls = Calls()
    calls.answers_max = 1

    async with asyncio.timeout(PATIENCE_S):
        first, second = await asyncio.gather(*calls.ask(1, 2), return_exceptions=True)

    assert first == 1
    assert isinstance(second, ValueError)
