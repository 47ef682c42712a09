"""Whether what is kept for equal calls is listed and counted as it is."""

from __future__ import annotations

from typing import NamedTuple

from flowd.store import Store


class CacheView(NamedTuple):
    """How many outputs are kept, and what is wrong with how they are counted."""

    entries: int = 0
    mismatches: tuple[str, ...] = ()


async def look_at_cache(store: Store) -> CacheView:
    sizes: dict[str, int] = {}
    async for page in store.tasks.cache.sizes():
        sizes |= page
    listed = {name async for page in store.tasks.cache.names() for name in page}
    found = [f"the output {one!r} is listed, not counted" for one in sorted(listed - sizes.keys())]
    found += [f"the output {one!r} is counted, not listed" for one in sorted(sizes.keys() - listed)]
    total, counted = sum(sizes.values()), (await store.tasks.cache.size()).size
    if total != counted:
        found.append(f"outputs that take {total:,} bytes are counted as {counted:,}")
    return CacheView(len(sizes), tuple(found))
