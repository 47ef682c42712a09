"""drop_outputs.lua: what is cleared, and nothing else, is gone."""

from __future__ import annotations

import pytest

from flowd.workflow.caching import Keep
from tests.store.cache import OUTPUT, is_sound


async def test_a_beginning_clears_what_begins_so_and_nothing_else(store):
    names = [f"llm/=weather {at}" for at in range(600)] + ["llm/=news", "llm/~0", "own/=weather 1"]
    await store.tasks.cache.keep([(Keep(one, 60_000), OUTPUT) for one in names])

    assert await store.tasks.cache.clear("llm/=weather ") == 600
    assert await store.tasks.cache.clear("llm/=weather ") == 0
    assert await store.tasks.cache.by_handler() == {
        "llm": (2, pytest.approx(700, rel=0.5)),
        "own": (1, pytest.approx(350, rel=0.5)),
    }
    assert await store.tasks.cache.clear("llm/") == 2
    assert await store.tasks.cache.clear() == 1
    assert await is_sound(store)
