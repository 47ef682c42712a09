"""Another primary is gone to when a Sentinel announces it: real servers, Sentinels that say what
they are told to."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Self

import pytest

from flowd.errors import StoreUnavailable
from flowd.store.redis import sentinels
from flowd.store.redis.client import RedisClient
from flowd.store.redis.sentinels import Address
from scripts.replica_set import HOST, MASTER_NAME, ReplicaSet
from tests.daemon import PATIENCE_S
from tests.store.engine import until
from tests.store.test_sentinels import at, until_answered

TOLD = "+failover-state-wait-promotion"
PROMOTED = "+promoted-slave"


class ScriptedSentinel:
    """Names who it is told to name, whatever it announces."""

    def __init__(self, named: Address) -> None:
        self.named = named
        self.asked = 0
        self.forbidden = ""
        self._listeners: dict[str, list[asyncio.StreamWriter]] = {}

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._answer, HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        self._server.close()

    @property
    def is_heard(self) -> bool:
        return bool(self._listeners)

    def announce(self, channel: str, address: Address) -> None:
        host, port = address
        text = f"slave {host}:{port} {host} {port} @ {MASTER_NAME} {self.named[0]} {self.named[1]}"
        for listener in self._listeners[channel]:
            listener.write(array("message", channel, text))

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while words := (await reader.readline()).decode().split():
                writer.write(self._reply(words, writer))
        writer.close()

    def _reply(self, words: list[str], writer: asyncio.StreamWriter) -> bytes:
        match words:
            case ["SUBSCRIBE", channel] if channel == self.forbidden:
                return b"-NOPERM No permissions to access a channel\r\n"
            case ["SUBSCRIBE", channel]:
                self._listeners.setdefault(channel, []).append(writer)
                return array("subscribe", channel, "1")
            case ["SENTINEL", *_]:
                self.asked += 1
                return array(self.named[0], str(self.named[1]))
        return array("pong", "")


def array(*texts: str) -> bytes:
    return f"*{len(texts)}\r\n".encode() + b"".join(
        f"${len(text)}\r\n{text}\r\n".encode() for text in texts
    )


@contextlib.asynccontextmanager
async def watched(named: Address, count: int = 2) -> AsyncIterator[list[ScriptedSentinel]]:
    async with contextlib.AsyncExitStack() as open_ones:
        yield [await open_ones.enter_async_context(ScriptedSentinel(named)) for _ in range(count)]


@contextlib.asynccontextmanager
async def client_of(told: list[ScriptedSentinel], tmp_path: Path) -> AsyncIterator[RedisClient]:
    hosts = ",".join(f"{HOST}:{one.port}" for one in told)
    client = RedisClient(at(f"redis+sentinel://{hosts}/{MASTER_NAME}", tmp_path))
    try:
        yield client
    finally:
        await client.close()


def times_asked_for_its_role(server) -> int:
    return server.ask("INFO", "commandstats").get("cmdstat_hello", {"calls": 0})["calls"]


async def test_who_was_told_to_be_the_primary_is_gone_to_once_it_is(pair: ReplicaSet, tmp_path):
    """The Sentinels name it up to a second later. The one before lives: who waits there would wait
    on, and who writes there would write what is lost."""
    old, new = pair.servers
    async with watched(old.address) as told, client_of(told, tmp_path) as client:
        assert await client.execute("SET", "x", "1") == "OK"
        waiting = client.new_session()
        bell = asyncio.create_task(waiting.execute("BLPOP", "list", 0, timeout_s=3_600))
        await until(lambda: old.ask("INFO", "clients")["blocked_clients"] == 1)
        await until(lambda: all(one.is_heard for one in told))
        before = times_asked_for_its_role(new)

        told[1].announce(TOLD, new.address)

        await until(lambda: times_asked_for_its_role(new) > before + 2)
        assert not bell.done()
        assert await client.execute("SET", "x", "2") == "OK"
        assert old.ask("GET", "x") == "2"
        new.ask("REPLICAOF", "NO", "ONE")
        with pytest.raises(StoreUnavailable):
            await bell
        assert await until_answered(client, "SET", "x", "3") == "OK"
        assert (old.ask("GET", "x"), new.ask("GET", "x")) == ("2", "3")
        await waiting.close()


async def test_all_go_back_where_the_failover_was_given_up(pair, tmp_path, monkeypatch):
    """The Sentinel that has led it is gone, and the others name the one that they named."""
    monkeypatch.setattr(sentinels, "LOOK_EVERY_S", 0.2)
    old, new = pair.servers
    async with watched(old.address) as told, client_of(told, tmp_path) as client:
        await client.execute("PING")
        await until(lambda: all(one.is_heard for one in told))
        new.ask("REPLICAOF", "NO", "ONE")
        told[1].announce(TOLD, new.address)
        async with asyncio.timeout(PATIENCE_S):
            while new.ask("GET", "x") != "there":
                await until_answered(client, "SET", "x", "there")

            while old.ask("GET", "x") != "back":
                await until_answered(client, "SET", "x", "back")


async def test_a_user_who_may_not_hear_all_of_it_hears_the_rest(pair, tmp_path):
    """One with the rights that were enough before."""
    old, new = pair.servers
    async with watched(old.address) as told, client_of(told, tmp_path) as client:
        for one in told:
            one.forbidden = TOLD
        await client.execute("PING")
        await until(lambda: all(one.is_heard for one in told))
        new.ask("REPLICAOF", "NO", "ONE")

        told[0].announce(PROMOTED, new.address)

        async with asyncio.timeout(PATIENCE_S):
            while new.ask("GET", "x") is None:
                await until_answered(client, "SET", "x", "1")


@pytest.fixture
def silent() -> Iterator[Address]:
    """An address whose host answers nothing, as one does that is cut off."""
    with contextlib.ExitStack() as open_ones:
        listener = open_ones.enter_context(socket.create_server((HOST, 0), backlog=0))
        for _ in range(4):
            # Whoever comes behind them is not let in, and not refused.
            one = open_ones.enter_context(socket.socket())
            one.setblocking(False)
            one.connect_ex(listener.getsockname())
        yield listener.getsockname()


async def test_an_address_where_nobody_answers_is_left_when_there_is_another(
    pair, silent, tmp_path
):
    """It was waited for until the time to connect was over: for five seconds."""
    async with watched(silent) as told, client_of(told, tmp_path) as client:
        asked = asyncio.create_task(client.execute("SET", "x", "1"))
        await until(lambda: all(one.is_heard for one in told) and any(one.asked for one in told))

        told[1].announce(PROMOTED, pair.servers[0].address)

        assert await asked == "OK"
        assert pair.servers[0].ask("GET", "x") == "1"
