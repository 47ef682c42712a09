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


def _counter(state: ExecutionState) -> str:
    return f"executions {state}"


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

    async def note_hour(self, hour: int) -> None:
        """Note how many executions have ended by now, as this hour since 1970 begins. Whoever notes
        it first is right."""
        counted = await self._client.execute("HMGET", keys.METRICS, *map(_counter, ENDED_STATES))
        await self._client.converse(
            [
                ("HSETNX", keys.ENDED, f"{hour} {state}", count_of(count))
                for state, count in zip(ENDED_STATES, counted, strict=True)
            ]
        )

    async def ended(self, hours: range) -> list[Mapping[ExecutionState, int]]:
        """How many executions have ended in each of these hours since 1970, by their state.

        It is what was counted more when the hour after it began; where nobody noted that, it counts
        in the last hour that was noted before.
        """
        fields = [f"{hour} {state}" for state in ENDED_STATES for hour in hours]
        notes, newest = await self._client.converse_freely(
            [
                ("HMGET", keys.ENDED, *fields),
                ("HMGET", keys.METRICS, *map(_counter, ENDED_STATES)),
            ]
        )
        notes = [None] * len(fields) if is_wrong_type(notes) else notes
        newest = [None] * len(ENDED_STATES) if is_wrong_type(newest) else newest
        found: list[dict[ExecutionState, int]] = [{} for _ in hours]
        for place, state in enumerate(ENDED_STATES):
            after = count_of(newest[place])
            for at in reversed(range(len(hours))):
                note = notes[place * len(hours) + at]
                found[at][state] = 0 if note is None else max(0, after - count_of(note))
                after = after if note is None else count_of(note)
        return list(found)

    async def forget_ended(self, at_ms: int) -> None:
        """Forget the hours that are longer ago than is kept."""
        oldest = at_ms // HOUR_MS - HOURS_KEPT
        fields: list[str] = await self._client.execute("HKEYS", keys.ENDED)
        gone = [one for one in fields if count_of(one.partition(" ")[0]) < oldest]
        dropped: list[Command] = [("HDEL", keys.ENDED, *gone)] if gone else []
        if dropped:
            await self._client.converse(dropped)
