"""Sets: which of the things that are saved under names were applied together, and so belong to one
set of files."""

from __future__ import annotations

from collections.abc import Collection
from typing import Literal, NamedTuple, get_args

from flowd.store.redis import keys
from flowd.store.redis.client import Command, RedisClient
from flowd.workflow.ids import is_name

# What `flowd apply` knows to put, by the words it has for it.
Kind = Literal["definition", "schedule", "limit"]


class Member(NamedTuple):
    kind: Kind
    name: str

    def __str__(self) -> str:
        return f"{self.kind} {self.name}"


def parse_member(text: str) -> Member | None:
    """None for what a hand has written."""
    kind, _, name = text.partition(" ")
    known: tuple[Kind, ...] = get_args(Kind)
    return next((Member(one, name) for one in known if one == kind and is_name(name)), None)


class Sets:
    """A member belongs to the set it was last put into, until it is deleted.

    Raises StoreUnavailable while Redis does not answer; every call may be repeated.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def owners(self) -> dict[str, str]:
        """As it is stored: the set by what belongs to it."""
        fields = await self._client.execute("HGETALL", keys.SETS)
        return dict(zip(fields[::2], fields[1::2], strict=True))

    async def members(self, name: str) -> list[Member]:
        """In their order; none of a set that nobody has put."""
        owned = sorted(text for text, owner in (await self.owners()).items() if owner == name)
        return [one for one in map(parse_member, owned) if one]

    async def put(self, name: str, members: Collection[Member]) -> None:
        """From now on these are its members, and no others."""
        gone = sorted(set(await self.members(name)).difference(members))
        commands: list[Command] = []
        if members:
            pairs = [part for one in sorted(members) for part in (str(one), name)]
            commands.append(("HSET", keys.SETS, *pairs))
        if gone:
            commands.append(("HDEL", keys.SETS, *map(str, gone)))
        if commands:
            await self._client.converse(commands)
