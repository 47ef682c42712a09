"""Who holds a place of a workflow's `concurrency`, and who waits for one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal, NamedTuple, cast

from flowd.config import Settings
from flowd.store.executions import NODES_PER_CALL_MAX, now_ms
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Command, RedisClient, is_wrong_type
from flowd.store.redis.text import count_of, readable

WhenFull = Literal["queue", "refuse", "replace"]

HOLDERS_SHOWN_MAX: Final = 100
_SETTLED_TOGETHER: Final = 100
_FIELDS: Final = ("name", "concurrency", "place", "waiting")


class Place(NamedTuple):
    """What an execution holds, or waits for since `since_ms`; `ahead` wait longer for it.

    `holders` are the executions that have a place of the same key, 100 at most.
    """

    name: str
    key: str
    max: int
    when_full: WhenFull
    since_ms: int | None
    holders: Sequence[str]
    ahead: int = 0

    @property
    def waits(self) -> bool:
        return self.since_ms is not None


class Asked(NamedTuple):
    """What an execution says of the place it holds, or `waits` for."""

    digest: str
    max: int
    waits: bool


class Places:
    """Every method raises StoreUnavailable while Redis does not answer; each may be repeated."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._stream = settings.tasks.stream

    async def find(self, execution_id: str) -> Place | None:
        """None for one that has asked for none, or whose run was damaged."""
        (run,) = await self._client.converse_freely([("HMGET", keys.run(execution_id), *_FIELDS)])
        if is_wrong_type(run) or run[1] is None or run[2] is None:
            return None
        return await self._read(execution_id, *run)

    async def holders(self, place: str) -> list[str]:
        """Of what `place_of` gives; 100 at most."""
        digest = place.partition(" ")[0]
        (members,) = await self._client.converse_freely([_range(keys.PLACE_HOLDERS, digest)])
        return [] if is_wrong_type(members) else [one.rpartition(" ")[2] for one in members]

    async def _read(
        self, execution_id: str, name: str | None, said: str, place: str, waiting: str | None
    ) -> Place:
        digest, _, key = place.partition(" ")
        most, _, when_full = said.partition(" ")
        since_ms = count_of((waiting or "").partition(" ")[0]) if waiting else None
        asked: list[Command] = [_range(keys.PLACE_HOLDERS, digest)]
        if since_ms is not None:
            own = _waiter(digest, since_ms, execution_id)
            asked.append(("ZLEXCOUNT", keys.PLACE_WAITERS, f"[{digest} ", f"({own}"))
        members, *ahead = await self._client.converse_freely(asked)
        return Place(
            readable(name or ""),
            readable(key),
            count_of(most),
            cast(WhenFull, when_full),
            since_ms,
            [] if is_wrong_type(members) else [one.rpartition(" ")[2] for one in members],
            0 if not ahead or is_wrong_type(ahead[0]) else ahead[0],
        )

    async def settle_slice(self, cursor: str) -> tuple[str, int]:
        """Take the places of some executions that do not run, and start who waits for those that
        are free: the cursor for more, empty behind the last, and how many were started."""
        key, _, after = (cursor or f"{keys.PLACE_HOLDERS} -").partition(" ")
        found = await self._client.execute(
            "ZRANGE", key, after, "+", "BYLEX", "LIMIT", 0, _SETTLED_TOGETHER
        )
        started = 0
        if found:
            members = list(map(_member, found))
            started = await self._client.run(
                scripts.SETTLE_PLACES,
                (keys.ACTIVE, self._stream, keys.PLACE_HOLDERS, keys.PLACE_WAITERS),
                now_ms(),
                *(part for pair in members for part in pair),
            )
        if len(found) == _SETTLED_TOGETHER:
            return f"{key} ({found[-1]}", started
        return f"{keys.PLACE_WAITERS} -" if key == keys.PLACE_HOLDERS else "", started

    async def all_holders(self) -> list[tuple[str, str]]:
        """Of each the digest of its key, and the execution."""
        return await self._all(keys.PLACE_HOLDERS)

    async def all_waiters(self) -> list[tuple[str, str]]:
        """As `all_holders`; of a key who has asked first first."""
        return await self._all(keys.PLACE_WAITERS)

    async def _all(self, key: str) -> list[tuple[str, str]]:
        members: list[tuple[str, str]] = []
        after = "-"
        while True:
            found = await self._client.execute(
                "ZRANGE", key, after, "+", "BYLEX", "LIMIT", 0, NODES_PER_CALL_MAX
            )
            members += map(_member, found)
            if len(found) < NODES_PER_CALL_MAX:
                return members
            after = f"({found[-1]}"

    async def asked(self, execution_ids: Sequence[str]) -> dict[str, Asked]:
        """What those of these say that have asked for a place."""
        if not execution_ids:
            return {}
        replies = await self._client.converse_freely(
            [("HMGET", keys.run(one), *_FIELDS[1:]) for one in execution_ids]
        )
        return {
            one: Asked(run[1].partition(" ")[0], count_of(run[0].partition(" ")[0]), bool(run[2]))
            for one, run in zip(execution_ids, replies, strict=True)
            if not is_wrong_type(run) and run[0] is not None and run[1] is not None
        }


def _waiter(digest: str, since_ms: int, execution_id: str) -> str:
    return f"{digest} {since_ms:015d} {execution_id}"


def _member(text: str) -> tuple[str, str]:
    return text.partition(" ")[0], text.rpartition(" ")[2]


def _range(key: str, digest: str) -> Command:
    return ("ZRANGE", key, f"[{digest} ", f"({digest}!", "BYLEX", "LIMIT", 0, HOLDERS_SHOWN_MAX)
