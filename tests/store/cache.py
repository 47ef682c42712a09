"""What the tests of the cache act with."""

from __future__ import annotations

from flowd.diagnosis.cache_check import look_at_cache
from flowd.workflow.caching import Keep

A, B = Keep("llm/=a", 60_000), Keep("llm/=b", 60_000)
OUTPUT = b'{"answer":"\xc3\xa4\\n1"}'


async def is_sound(store):
    view = await look_at_cache(store)
    size = await store.tasks.cache.size()
    return view.mismatches == () and view.entries == size.entries
