"""Commands that many ask for at once, sent in one write."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from functools import partial
from typing import Any, Final

from flowd.errors import MissingScript, StoreUnavailable
from flowd.store.redis.client import Argument, Command, RedisClient, script_call, translate
from flowd.store.redis.scripts import Script

# Of those that ask: more in one write would keep others from the server for too long.
_JOINED_MAX: Final = 32

_Asked = tuple[Sequence[Command], asyncio.Future[list[Any]]]


class Joined:
    """Whoever asks in one turn of the event loop shares a write with the others, and fails together
    with them where Redis does not answer."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._waiting: list[_Asked] = []
        # The loop itself does not hold on to its tasks.
        self._writes: set[asyncio.Task[None]] = set()

    async def converse_freely(self, commands: Sequence[Command]) -> list[Any]:
        """As RedisClient: error replies stand among the others."""
        replies: asyncio.Future[list[Any]] = asyncio.get_running_loop().create_future()
        if not self._waiting:
            # It runs after all that are ready now, and so finds what they ask.
            write = asyncio.create_task(self._write(self._waiting))
            self._writes.add(write)
            write.add_done_callback(partial(self._end_write, self._waiting))
        self._waiting.append((commands, replies))
        return await replies

    async def run(self, script: Script, keys: Sequence[str], *arguments: Argument) -> Any:
        """As RedisClient: the reply of one script, loaded first where it is missing."""
        (reply,) = await self.converse_freely([script_call(script, keys, arguments)])
        if not isinstance(reply, Exception):
            return reply
        error = translate(reply)
        if isinstance(error, MissingScript):
            return await self._client.run(script, keys, *arguments)
        raise error from reply

    async def _write(self, asked: Sequence[_Asked]) -> None:
        self._waiting = []
        for first in range(0, len(asked), _JOINED_MAX):
            # Who was cancelled meanwhile asks for nothing.
            some = [one for one in asked[first : first + _JOINED_MAX] if not one[1].done()]
            commands = [command for own, _ in some for command in own]
            left = iter(await self._client.converse_freely(commands) if commands else ())
            for own, replies in some:
                received = [next(left) for _ in own]
                if not replies.done():
                    replies.set_result(received)

    def _end_write(self, asked: Sequence[_Asked], write: asyncio.Task[None]) -> None:
        """However it ended, nobody who shared it waits on."""
        self._writes.discard(write)
        if self._waiting is asked:
            # It was cancelled before it began.
            self._waiting = []
        error = StoreUnavailable("it was broken off") if write.cancelled() else write.exception()
        for _, replies in asked:
            if error is not None and not replies.done():
                replies.set_exception(error)
