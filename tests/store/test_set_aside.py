"""A key that all share and that is none of flowd's is kept under another name."""

from __future__ import annotations

from flowd.store.redis import keys
from tests.store.engine import CHAIN, STREAM, everything


async def test_what_is_as_it_should_be_stays(engine, redis, outcomes):
    worker = engine.worker()
    await engine.start_and_take(CHAIN, worker)
    before = everything(redis)

    assert await engine.store.tasks.set_aside() == []

    assert outcomes["set_aside"] == [[]]
    assert everything(redis) == before


async def test_every_shared_key_is_moved_with_all_that_is_in_it(store, redis):
    for key, kind in keys.shared_types(STREAM).items():
        redis.set(key, "raw") if kind == "list" else redis.rpush(key, "raw")
    before = everything(redis)

    moved = await store.tasks.set_aside()

    assert {name.split(":", 3)[3] for name in moved} == before.keys()
    assert {name.split(":", 3)[3]: redis.dump(name) for name in moved} == before
    assert set(redis.keys()) == set(moved)
    assert await store.tasks.set_aside() == []
