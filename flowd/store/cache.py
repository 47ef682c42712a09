"""Outputs that stand for equal calls, each until its time is up, and all within a bound."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from typing import Final, NamedTuple

import orjson

from flowd.config import Settings
from flowd.store.executions import slices
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Argument, RedisClient
from flowd.store.redis.text import count_of, raw_bytes, readable
from flowd.workflow.caching import Keep

# An output beyond this is made anew each time.
OUTPUT_KEPT_BYTES_MAX: Final = 1024 * 1024
_READ_PER_CALL: Final = 16
_WRITTEN_PER_CALL: Final = 64
_PAGE: Final = 500
_TOTAL: Final = "total"


class Kept(NamedTuple):
    """How much is kept: `entries` that take `size` bytes of `size_max`."""

    entries: int
    size: int
    size_max: int


NOTHING_KEPT: Final = Kept(0, 0, 0)


class Cache:
    """Every method raises StoreUnavailable while Redis does not answer; each may be repeated."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._size_max = settings.retention.cache_max_mb * 1024 * 1024
        self._keys = (keys.CACHE, keys.CACHE_SIZES)

    async def find(self, asked: Sequence[Keep]) -> list[bytes | None]:
        """The output that is kept under each of these, and is no older than it may be."""
        found: list[bytes | None] = []
        for some in slices(asked, _READ_PER_CALL):
            arguments = [one for keep in some for one in (keep.name, keep.ttl_ms)]
            texts = await self._client.run(scripts.FIND_OUTPUTS, (), *arguments)
            found += map(_output, texts)
        return found

    async def keep(self, outputs: Sequence[tuple[Keep, bytes]]) -> None:
        """Keep these from now on, each for its time, in place of what was kept under their names.

        What is over makes room, then what would be over soonest.
        """
        for some in slices(outputs, _WRITTEN_PER_CALL) if outputs else [()]:
            arguments: list[Argument] = [self._size_max]
            for keep, output in some:
                if len(output) <= OUTPUT_KEPT_BYTES_MAX:
                    arguments += (keep.name, keep.ttl_ms, output)
            await self._client.run(scripts.KEEP_OUTPUTS, self._keys, *arguments)

    async def trim(self) -> bool:
        """Forget what is over, and what is too much; True when there may be more of it."""
        outcome = await self._client.run(scripts.KEEP_OUTPUTS, self._keys, self._size_max)
        return bool(outcome == "more")

    async def size(self) -> Kept:
        entries, total = await self._client.converse(
            [("ZCARD", keys.CACHE), ("HGET", keys.CACHE_SIZES, _TOTAL)]
        )
        return Kept(entries, count_of(total), self._size_max)

    async def by_handler(self) -> dict[str, tuple[int, int]]:
        """How many outputs are kept for each handler, and how many bytes they take."""
        found: dict[str, tuple[int, int]] = {}
        async for page in self.sizes():
            for name, size in page.items():
                handler = readable(name.partition("/")[0])
                entries, total = found.get(handler, (0, 0))
                found[handler] = entries + 1, total + size
        return dict(sorted(found.items()))

    async def sizes(self) -> AsyncIterator[dict[str, int]]:
        """What each name is counted as, some at a time."""
        cursor = "0"
        while True:
            cursor, flat = await self._client.execute(
                "HSCAN", keys.CACHE_SIZES, cursor, "COUNT", _PAGE
            )
            pairs = zip(flat[::2], flat[1::2], strict=True)
            yield {name: count_of(size) for name, size in pairs if name != _TOTAL}
            if cursor == "0":
                return

    async def names(self) -> AsyncIterator[list[str]]:
        """Of all that is kept, some at a time."""
        cursor = "0"
        while True:
            cursor, flat = await self._client.execute("ZSCAN", keys.CACHE, cursor, "COUNT", _PAGE)
            yield flat[::2]
            if cursor == "0":
                return

    async def clear(self, beginning: str = "") -> int:
        """Forget what is kept under names that begin so; how much that was."""
        removed = 0
        written = beginning.encode()
        async for page in self.names():
            gone = [one for one in page if raw_bytes(one).startswith(written)]
            for some in slices(gone, _PAGE):
                removed += await self._client.run(scripts.DROP_OUTPUTS, self._keys, *some)
        return removed


def _output(text: str) -> bytes | None:
    """None for what a hand has written there: no output of a node is anything but an object."""
    data = raw_bytes(text)
    try:
        return data if data and isinstance(orjson.loads(data), dict) else None
    except ValueError:
        return None
