"""Walks over the executions that may pass a filter, from the newest id to the oldest.

The lists by state, name and label each hold what passes one of the filters: the shortest of them is
walked, and what it has is held against the others.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from typing import Any, Final, Protocol

from flowd.errors import CorruptStore, WrongType
from flowd.store.redis import keys
from flowd.store.redis.client import Command, RedisClient, is_wrong_type
from flowd.workflow.states import ExecutionState

# Beyond this many, the active are not sorted for one page.
ACTIVE_SORTED_MAX: Final = 20_000
# Of names that begin with the same letters.
NAMES_JOINED_MAX: Final = 20
# More than any id has.
_END: Final = "g"


class Walk(Protocol):
    async def read(self, below: str, least: str, size: int) -> list[str]:
        """Up to `size` members below the one and from the other on, the greatest first; fewer are
        all there are."""


class ListWalk:
    """A list of ids that all have the score 0."""

    def __init__(self, client: RedisClient, key: str) -> None:
        self._client = client
        self._key = key

    async def read(self, below: str, least: str, size: int) -> list[str]:
        return await _read(self._client, self._key, f"({below or _END}", f"[{least}", size)


class NameWalk:
    """The executions of one name."""

    def __init__(self, client: RedisClient, name: str) -> None:
        self._client = client
        self._prefix = f"{name}\0"

    async def read(self, below: str, least: str, size: int) -> list[str]:
        prefix = self._prefix
        bounds = f"({prefix}{below or _END}", f"[{prefix}{least}"
        members = await _read(self._client, keys.NAMES, *bounds, size)
        return [one.removeprefix(prefix) for one in members]


class ActiveWalk:
    """What runs or is paused: a set, sorted once."""

    def __init__(self, client: RedisClient) -> None:
        self._client = client
        self._sorted: list[str] | None = None

    async def read(self, below: str, least: str, size: int) -> list[str]:
        if self._sorted is None:
            try:
                self._sorted = sorted(await self._client.execute("SMEMBERS", keys.ACTIVE))
            except WrongType as error:
                raise CorruptStore(keys.ACTIVE) from error
        end = bisect_left(self._sorted, below or _END)
        begin = max(bisect_left(self._sorted, least), end - size)
        return self._sorted[begin:end][::-1]


class JoinedWalk:
    def __init__(self, walks: Sequence[Walk]) -> None:
        self._walks = walks

    async def read(self, below: str, least: str, size: int) -> list[str]:
        found: set[str] = set()
        for walk in self._walks:
            found.update(await walk.read(below, least, size))
        return sorted(found, reverse=True)[:size]


async def _read(client: RedisClient, key: str, begin: str, end: str, size: int) -> list[str]:
    try:
        members: list[str] = await client.execute(
            "ZRANGE", key, begin, end, "BYLEX", "REV", "LIMIT", 0, size
        )
    except WrongType as error:
        raise CorruptStore(key) from error
    return members


async def shortest_walk(
    client: RedisClient, statuses: frozenset[str], name: str | None, labels: Sequence[str]
) -> Walk:
    """Over all that may pass, where the lists are complete; `name` may end in `*`."""
    lists = [ListWalk(client, keys.EXECUTIONS)]
    sizes: list[Command] = [("ZCARD", keys.EXECUTIONS)]
    choices: list[list[Walk]] = [[*lists]]
    asked: list[list[Command]] = [sizes]
    if statuses:
        choices.append([_of_status(client, one) for one in sorted(statuses)])
        asked.append([_size_of_status(one) for one in sorted(statuses)])
    for label in labels:
        choices.append([ListWalk(client, keys.label(label))])
        asked.append([("ZCARD", keys.label(label))])
    names = None if name is None else await _names(client, name)
    if names is not None:
        choices.append([NameWalk(client, one) for one in names])
        asked.append([("ZLEXCOUNT", keys.NAMES, f"[{one}\0", f"({one}\1") for one in names])
    replies = iter(await client.converse_freely([one for some in asked for one in some]))
    totals = [sum(_size(next(replies)) for _ in some) for some in asked]
    ranked = sorted(range(len(choices)), key=totals.__getitem__)
    for at in ranked:
        is_large = totals[at] > ACTIVE_SORTED_MAX
        if not (is_large and any(isinstance(one, ActiveWalk) for one in choices[at])):
            walks = choices[at]
            return walks[0] if len(walks) == 1 else JoinedWalk(walks)
    return choices[0][0]


def _size(reply: Any) -> int:
    return 0 if is_wrong_type(reply) else int(reply)


def _of_status(client: RedisClient, status: str) -> Walk:
    if status == ExecutionState.RUNNING:
        return ActiveWalk(client)
    return ListWalk(client, keys.by_status(status))


def _size_of_status(status: str) -> Command:
    if status == ExecutionState.RUNNING:
        return ("SCARD", keys.ACTIVE)
    return ("ZCARD", keys.by_status(status))


async def _names(client: RedisClient, wanted: str) -> list[str] | None:
    """The names there are that pass; None where they are too many."""
    if not wanted.endswith("*"):
        return [wanted]
    prefix = wanted[:-1]
    found: list[str] = []
    after = f"[{prefix}"
    while prefix and len(found) < NAMES_JOINED_MAX:
        command = ("ZRANGE", keys.NAMES, after, "+", "BYLEX", "LIMIT", 0, 1)
        (members,) = await client.converse_freely([command])
        if is_wrong_type(members) or not members or not members[0].startswith(prefix):
            return found
        found.append(members[0][:-25])
        after = f"({found[-1]}\1"
    return None
