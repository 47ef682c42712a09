"""Calls that are over when so many replicas have all that their answers rest on.

Behind each call, on its connection and in its write, goes a PUBLISH and a WAIT. WAIT speaks of what
this connection has written alone: a script that finds the work of another done has written
nothing. The PUBLISH is written for the replicas, and not to disk, behind all that came before it.
Where too few have it in time the call is an error although it was done, as after a lost reply:
whoever calls again hears what he would have heard.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from flowd.config import Settings
from flowd.errors import StoreError, StoreUnavailable
from flowd.store.redis.client import (
    REPLY_TIMEOUT_S,
    Calls,
    Command,
    RedisClient,
    Session,
    translate,
)

FENCE: Final = ("PUBLISH", "flowd:fence", "")
CONFIRM_MS: Final = 1_000
# Of those that ask: more in one write would keep others from the server for too long.
_BATCH_MAX: Final = 64
# What answers without a promise: a failover may take back what was read. A wake-up is none either.
_READS: Final = frozenset({
    "BLPOP", "CONFIG", "EXISTS", "GET", "GETRANGE", "HELLO", "HEXISTS", "HGET", "HGETALL", "HKEYS",
    "HLEN", "HMGET", "HSCAN", "HSTRLEN", "INFO", "LLEN", "MGET", "PING", "SCAN", "SCARD", "SCRIPT",
    "SISMEMBER", "SMEMBERS", "SSCAN", "STRLEN", "TIME", "TYPE", "XINFO", "XLEN", "XPENDING",
    "XRANGE", "XREAD", "XREVRANGE", "ZCARD", "ZCOUNT", "ZLEXCOUNT", "ZMSCORE", "ZRANGE",
    "ZRANGEBYLEX", "ZRANGEBYSCORE", "ZRANK", "ZSCAN", "ZSCORE",
})  # fmt: skip


_Asked = tuple[Sequence[Command], asyncio.Future[list[Any]]]


class NotReplicated(StoreUnavailable):
    """It was done, and too few replicas have it: a failover might undo it."""

    code = "not_replicated"

    def __init__(self, held: int, asked_for: int) -> None:
        super().__init__(
            f"{held} of the {asked_for} replicas that redis.replicas asks for have it; send it "
            "again, with the same Idempotency-Key if it makes something, which makes it once"
        )


def is_reading(commands: Sequence[Command]) -> bool:
    return all(command[0] in _READS for command in commands)


class ReplicatedSession(Session):
    """As Session; what it answers is on this many replicas."""

    replicas: int

    async def converse(
        self, commands: Sequence[Command], *, timeout_s: float = REPLY_TIMEOUT_S
    ) -> list[Any]:
        if is_reading(commands):
            return await super().converse(commands, timeout_s=timeout_s)
        tail = (FENCE, ("WAIT", self.replicas, CONFIRM_MS))
        if "BLOCK" in commands[-1]:
            # Behind a read that has blocked, WAIT is late by up to a second: a write of its own.
            replies = await super().converse(commands, timeout_s=timeout_s)
            if replies != [None]:
                self._expect(await super().converse(tail))
            return replies
        *replies, fence, held = await super().converse([*commands, *tail], timeout_s=timeout_s)
        self._expect((fence, held))
        return replies

    def _expect(self, confirmation: Sequence[Any]) -> None:
        for reply in confirmation:
            if isinstance(reply, Exception):
                raise translate(reply) from reply
        if confirmation[1] < self.replicas:
            raise NotReplicated(confirmation[1], self.replicas)


class ReplicatedClient(RedisClient):
    """As RedisClient; but for what only reads, calls wait for each other: those that come while
    some are confirmed go together, and are confirmed together."""

    def __init__(self, settings: Settings) -> None:
        super().__init__(settings)
        self._replicas = settings.redis.replicas
        self._writer: asyncio.Task[None] | None = None
        self._waiting: list[_Asked] = []
        self._confirmed = self.new_session()
        self.unconfirmed: Calls = _Unconfirmed(self)

    def new_session(self) -> Session:
        session = ReplicatedSession(self.connect)
        session.replicas = self._replicas
        return session

    async def converse_freely(self, commands: Sequence[Command]) -> list[Any]:
        if is_reading(commands):
            return await super().converse_freely(commands)
        answer: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        self._waiting.append((commands, answer))
        if self._writer is None:
            # It runs after all that are ready now, and so finds what they ask.
            self._writer = asyncio.create_task(self._write())
        return await answer

    async def close(self) -> None:
        if self._writer is not None:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        await self._confirmed.close()
        await super().close()

    async def _write(self) -> None:
        asked: list[_Asked] = []
        error: StoreError = StoreUnavailable("it was broken off")
        try:
            while self._waiting:
                # Who was cancelled meanwhile asks for nothing.
                asked = [one for one in self._waiting[:_BATCH_MAX] if not one[1].done()]
                del self._waiting[:_BATCH_MAX]
                try:
                    await self._write_batch(asked)
                except StoreError as refused:
                    _fail(asked, refused)
        finally:
            self._writer = None
            _fail((*asked, *self._waiting), error)
            self._waiting.clear()

    async def _write_batch(self, asked: Sequence[_Asked]) -> None:
        commands = [command for own, _ in asked for command in own]
        left = iter(await self._confirmed.converse(commands) if commands else ())
        for own, answer in asked:
            received = [next(left) for _ in own]
            if not answer.done():
                answer.set_result(received)


def _fail(asked: Sequence[_Asked], error: StoreError) -> None:
    for _, answer in asked:
        if not answer.done():
            answer.set_exception(error)


class _Unconfirmed(Calls):
    """What nobody is promised: signs of life, and counts."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def converse_freely(self, commands: Sequence[Command]) -> list[Any]:
        return await RedisClient.converse_freely(self._client, commands)


def new_client(settings: Settings) -> RedisClient:
    return ReplicatedClient(settings) if settings.redis.replicas else RedisClient(settings)
