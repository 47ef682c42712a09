"""Commands that are asked for at once: they share a write, and each has its own reply."""

from __future__ import annotations

import asyncio

import pytest

from flowd.errors import StoreUnavailable
from flowd.store.redis import scripts
from flowd.store.redis.client import RedisClient
from flowd.store.redis.joined import _JOINED_MAX, Joined
from tests.daemon import PATIENCE_S


class Counting(RedisClient):
    """Notes how many commands went with each write."""

    def __init__(self, settings) -> None:
        super().__init__(settings)
        self.writes: list[int] = []
        self.is_away = False
        self.replies_max: int | None = None

    async def converse_freely(self, commands):
        self.writes.append(len(commands))
        if self.is_away:
            raise StoreUnavailable("away")
        return (await super().converse_freely(commands))[: self.replies_max]


@pytest.fixture
def client(settings, runner):
    client = Counting(settings)
    yield client
    runner.run(client.close())


async def test_what_is_asked_at_once_shares_writes_and_each_has_its_own_reply(client):
    joined, count = Joined(client), _JOINED_MAX + 3

    replies = await asyncio.gather(
        *(joined.converse_freely([("ECHO", n), ("ECHO", -n)]) for n in range(count))
    )

    assert replies == [[str(n), str(-n)] for n in range(count)]
    assert client.writes == [2 * _JOINED_MAX, 6]


async def test_an_error_reply_is_that_of_who_asked_for_it(client, redis):
    joined = Joined(client)
    redis.set("text", "x")

    wrong, right = await asyncio.gather(
        joined.converse_freely([("HGET", "text", "a")]), joined.converse_freely([("GET", "text")])
    )

    assert isinstance(wrong[0], Exception)
    assert right == ["x"]


async def test_who_is_cancelled_takes_no_reply_of_another(client):
    joined = Joined(client)
    asked = [asyncio.create_task(joined.converse_freely([("ECHO", n)])) for n in range(3)]
    await asyncio.sleep(0)
    asked[1].cancel()

    replies = await asyncio.gather(*asked, return_exceptions=True)

    assert [replies[0], replies[2]] == [["0"], ["2"]]
    assert isinstance(replies[1], asyncio.CancelledError)


async def test_where_redis_is_away_everybody_hears_it_and_may_ask_again(client):
    joined = Joined(client)
    client.is_away = True

    replies = await asyncio.gather(
        *(joined.converse_freely([("ECHO", n)]) for n in range(2)), return_exceptions=True
    )

    assert [type(one) for one in replies] == [StoreUnavailable] * 2
    client.is_away = False
    assert await joined.converse_freely([("ECHO", 3)]) == ["3"]


@pytest.mark.parametrize("turns", range(4))
async def test_nobody_waits_on_for_a_write_that_was_broken_off(client, turns):
    """It may be cancelled before it begins, or on its way."""
    joined = Joined(client)
    asked = [asyncio.create_task(joined.converse_freely([("ECHO", n)])) for n in range(3)]
    await asyncio.sleep(0)
    (write,) = joined._writes
    for _ in range(turns):
        await asyncio.sleep(0)
    write.cancel()

    async with asyncio.timeout(PATIENCE_S):
        replies = await asyncio.gather(*asked, return_exceptions=True)
        assert [type(one) for one in replies] == [StoreUnavailable] * 3
        assert await joined.converse_freely([("ECHO", 3)]) == ["3"]


async def test_too_few_replies_are_an_error_to_who_waits_for_more(client):
    joined = Joined(client)
    client.replies_max = 1

    async with asyncio.timeout(PATIENCE_S):
        first, *others = await asyncio.gather(
            *(joined.converse_freely([("ECHO", n)]) for n in range(3)), return_exceptions=True
        )

    assert first == ["0"]
    assert all(isinstance(one, RuntimeError) for one in others)


async def test_a_script_that_the_server_has_forgotten_is_loaded(client, redis):
    redis.script_flush()
    arguments = ((*["none"] * 4, "flowd:definition:none"), "0", *["0"] * 10)

    outcomes = await asyncio.gather(
        *(Joined(client).run(scripts.START_CHILD, *arguments) for _ in range(2))
    )

    assert outcomes == ["ended", "ended"]
