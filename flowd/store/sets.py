"""Sets: which of the things that are saved under names were applied together, and so belong to one
set of files."""

from __future__ import annotations

from collections.abc import Collection

from flowd.store.redis import keys
from flowd.store.redis.client import Command, RedisClient


class Sets:
    """A member is `kind name`, and belongs to the set it was last put into.

    Raises StoreUnavailable while Redis does not answer; every call may be repeated.
    """

    def __init__(self, client: RedisClient) -> None:
        self._client = client

    async def members(self, name: str) -> list[str]:
        """In their order; none of a set that nobody has put."""
        fields = await self._client.execute("HGETALL", keys.SETS)
        pairs = zip(fields[::2], fields[1::2], strict=True)
        return sorted(member for member, owner in pairs if owner == name)

    async def put(self, name: str, members: Collection[str]) -> None:
        """From now on these are its members, and no others."""
        gone = sorted(set(await self.members(name)).difference(members))
        commands: list[Command] = []
        if members:
            pairs = [part for one in sorted(members) for part in (one, name)]
            commands.append(("HSET", keys.SETS, *pairs))
        if gone:
            commands.append(("HDEL", keys.SETS, *gone))
        if commands:
            await self._client.converse(commands)
