"""The lists of executions by state and by name: whether all are in them, how many, what has ended.

The scripts that write a state or make an execution keep them right. What an older version wrote, or
a hand has taken out, is put in by `Executions.readmit_slice`; `sweep` takes out what is of no
execution any more.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Final

from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Command, RedisClient, is_wrong_type
from flowd.store.redis.text import count_of
from flowd.workflow.states import ExecutionState

HOUR_MS: Final = 3_600_000
# So long what has ended in an hour is known: 62 days.
HOURS_KEPT: Final = 62 * 24
# Another one when the lists are to be made anew.
_VERSION: Final = "1"
_SLICE: Final = 1_000
# Of which there is a list: the active are those that run, and what is paused.
LISTED_STATES: Final[Sequence[ExecutionState]] = tuple(
    one for one in ExecutionState if one is not ExecutionState.RUNNING
)
ENDED_STATES: Final = tuple(one for one in ExecutionState if one.is_terminal)


class Indexes:
    """Raises StoreUnavailable while Redis does not answer; every call may be repeated."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def are_complete(self) -> bool:
        """Whether every execution is in them; until then a list has to look at all."""
        (reply,) = await self._client.converse_freely([("GET", keys.INDEXED)])
        return not is_wrong_type(reply) and reply == _VERSION

    async def distrust(self) -> None:
        await self._client.execute("DEL", keys.INDEXED)

    async def note_complete(self) -> None:
        await self._client.execute("SET", keys.INDEXED, _VERSION)

    async def counts(self) -> dict[ExecutionState, int]:
        """How many executions are in each state."""
        replies = await self._client.converse_freely(
            [
                *(("ZCARD", keys.by_status(state)) for state in LISTED_STATES),
                ("SCARD", keys.ACTIVE),
            ]
        )
        *listed, active = (0 if is_wrong_type(reply) else int(reply) for reply in replies)
        found: dict[ExecutionState, int] = dict(zip(LISTED_STATES, listed, strict=True))
        found[ExecutionState.RUNNING] = max(0, active - found[ExecutionState.PAUSED])
        return {state: found[state] for state in ExecutionState}

    async def sweep(self, at_ms: int) -> AsyncIterator[None]:
        """Take out what is of no execution any more. Yields wherever it may be interrupted."""
        for state in LISTED_STATES:
            async for ids in self._members(keys.by_status(state)):
                lists = (keys.ACTIVE, keys.FINISHED, keys.NAMES)
                await self._client.run(scripts.READMIT_EXECUTIONS, lists, at_ms, "0", *ids)
                yield
        async for members in self._members(keys.NAMES):
            await self._client.run(scripts.STRIKE_NAMES, (keys.NAMES,), *members)
            yield

    async def listed(self, state: str) -> AsyncIterator[str]:
        """The executions listed under this state."""
        async for ids in self._members(keys.by_status(state)):
            for one in ids:
                yield one

    async def named(self) -> AsyncIterator[tuple[str, str]]:
        """The name and the id of each execution listed by its name."""
        async for members in self._members(keys.NAMES):
            for one in members:
                yield one[:-25], one[-24:]

    async def _members(self, key: str) -> AsyncIterator[Sequence[str]]:
        cursor = "0"
        while True:
            cursor, flat = await self._client.execute("ZSCAN", key, cursor, "COUNT", _SLICE)
            for at in range(0, len(flat), 2 * _SLICE):
                yield flat[at : at + 2 * _SLICE : 2]
            if cursor == "0":
                return

    async def ended(self, hours: Sequence[int]) -> list[Mapping[ExecutionState, int]]:
        """How many executions have ended in each of these hours since 1970, by their state."""
        fields = [f"{hour} {state}" for hour in hours for state in ENDED_STATES]
        (reply,) = await self._client.converse_freely([("HMGET", keys.ENDED, *fields)])
        counts = [0] * len(fields) if is_wrong_type(reply) else [count_of(one) for one in reply]
        width = len(ENDED_STATES)
        return [
            dict(zip(ENDED_STATES, counts[at : at + width], strict=True))
            for at in range(0, len(fields), width)
        ]

    async def forget_ended(self, at_ms: int) -> None:
        """Forget the hours that are longer ago than is kept."""
        oldest = at_ms // HOUR_MS - HOURS_KEPT
        fields: list[str] = await self._client.execute("HKEYS", keys.ENDED)
        gone = [one for one in fields if count_of(one.partition(" ")[0]) < oldest]
        dropped: list[Command] = [("HDEL", keys.ENDED, *gone)] if gone else []
        if dropped:
            await self._client.converse(dropped)
