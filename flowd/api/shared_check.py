"""One check for everybody who asks: who asks costs nothing, the check does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, Generic, TypeVar

from flowd.api.http.limits import RateLimit

# Anybody may ask, without a token: beyond this many checks a second the newest answers.
CHECKS_PER_S_MAX: Final = 10

T = TypeVar("T")


class SharedCheck(Generic[T]):
    """Who asks while a check runs gets its answer; so does who asks too soon after it."""

    def __init__(self, check: Callable[[], Awaitable[T]]) -> None:
        self._check = check
        self._rate = RateLimit(CHECKS_PER_S_MAX)
        self._newest: asyncio.Task[T] | None = None

    async def __call__(self) -> T:
        if self._newest is None or (self._newest.done() and not self._rate.take("")):
            self._newest = asyncio.ensure_future(self._run())
        # One who leaves takes nobody's answer along.
        return await asyncio.shield(self._newest)

    async def _run(self) -> T:
        return await self._check()
