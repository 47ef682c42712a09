"""Commands that many ask for at once, sent in one write."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

from flowd.errors import MissingScript
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
            write = asyncio.create_task(self._write())
            self._writes.add(write)
            write.add_done_callback(self._writes.discard)
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

    async def _write(self) -> None:
        asked, self._waiting = self._waiting, []
        for first in range(0, len(asked), _JOINED_MAX):
            await self._write_some(asked[first : first + _JOINED_MAX])

    async def _write_some(self, asked: Sequence[_Asked]) -> None:
        # Who was cancelled meanwhile asks for nothing.
        asked = [one for one in asked if not one[1].done()]
        commands = [command for some, _ in asked for command in some]
        try:
            left = iter(await self._client.converse_freely(commands) if commands else ())
        except Exception as error:  # noqa: BLE001 - theirs, whatever it is
            for _, replies in asked:
                if not replies.done():
                    replies.set_exception(error)
            return
        for some, replies in asked:
            own = [next(left) for _ in some]
            if not replies.done():
                replies.set_result(own)
