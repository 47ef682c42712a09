"""What many ask for in one turn of the event loop, answered by one call."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Hashable, Sequence
from functools import partial
from typing import Generic, TypeVar

from flowd.errors import StoreUnavailable

Key = TypeVar("Key", bound=Hashable)
Asked = TypeVar("Asked")
Answer = TypeVar("Answer")


class Together(Generic[Key, Asked, Answer]):
    """Whoever asks under one key in one turn of the event loop is answered by one call, and fails
    together with the others where that does. `most` says how many one call bears."""

    def __init__(
        self,
        call: Callable[[Key, Sequence[Asked]], Awaitable[Sequence[Answer]]],
        most: Callable[[Key], int],
    ) -> None:
        self._call = call
        self._most = most
        self._waiting: dict[Key, list[tuple[Asked, asyncio.Future[Answer]]]] = {}
        # The loop itself does not hold on to its tasks.
        self._calls: set[asyncio.Task[None]] = set()

    async def ask(self, key: Key, asked: Asked) -> Answer:
        answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.get(key)
        if waiting is None:
            waiting = self._waiting[key] = []
            # It runs after all that are ready now, and so finds what they ask.
            call = asyncio.create_task(self._answer(key, waiting))
            self._calls.add(call)
            call.add_done_callback(partial(self._end, key, waiting))
        waiting.append((asked, answer))
        return await answer

    async def _answer(
        self, key: Key, waiting: Sequence[tuple[Asked, asyncio.Future[Answer]]]
    ) -> None:
        del self._waiting[key]
        size = self._most(key)
        for first in range(0, len(waiting), size):
            # Who was cancelled meanwhile asks for nothing.
            some = [one for one in waiting[first : first + size] if not one[1].done()]
            answers = await self._call(key, [one for one, _ in some]) if some else ()
            for (_, answer), received in zip(some, answers, strict=True):
                if not answer.done():
                    answer.set_result(received)

    def _end(
        self,
        key: Key,
        waiting: Sequence[tuple[Asked, asyncio.Future[Answer]]],
        call: asyncio.Task[None],
    ) -> None:
        """However it ended, nobody who shared it waits on."""
        self._calls.discard(call)
        if self._waiting.get(key) is waiting:
            # It was cancelled before it began.
            del self._waiting[key]
        error = StoreUnavailable("it was broken off") if call.cancelled() else call.exception()
        for _, answer in waiting:
            if error is not None and not answer.done():
                answer.set_exception(error)
