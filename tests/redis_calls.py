"""Every call to Redis in this process, by whichever connection: to be listened to or held up."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import pytest

from flowd.store.redis.client import RedisClient, Session

# Awaits the replies to these commands.
Ask = Callable[[], Awaitable[list[Any]]]


def listen_to_calls(
    monkeypatch: pytest.MonkeyPatch,
    listener: Callable[[Sequence[Any], Ask], Awaitable[list[Any]]],
) -> None:
    """`listener` is given the commands of each call, and asks itself; it returns the replies."""
    for owner, name in ((Session, "converse"), (RedisClient, "_converse_together")):
        converse = getattr(owner, name)

        async def listening(
            self: Any, commands: Any, *rest: Any, _converse: Any = converse, **options: Any
        ) -> list[Any]:
            return await listener(commands, lambda: _converse(self, commands, *rest, **options))

        monkeypatch.setattr(owner, name, listening)


def answer_within(monkeypatch: pytest.MonkeyPatch, seconds: float) -> None:
    """Whoever asks gives up after so long, by whichever connection."""
    for method in (Session.execute, Session.converse):
        monkeypatch.setitem(method.__kwdefaults__, "timeout_s", seconds)
    monkeypatch.setattr("flowd.store.redis.client.REPLY_TIMEOUT_S", seconds)
