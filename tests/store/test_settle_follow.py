"""settle_follow.lua: children have followed when their parent is still as it was."""

from __future__ import annotations

from flowd.store.redis import keys
from tests.store.engine import CHAIN


def left(redis) -> set[str]:
    members = redis.zrange(keys.CONTINUATIONS, 0, -1)
    return {one.split(" ", 2)[2] for one in members if one.startswith("follow ")}


async def test_what_was_done_is_no_longer_to_do(engine, store, redis):
    execution = await engine.start(CHAIN)
    for how, rest in (("", {"hold", "force"}), ("hold", {"force"}), ("force", set())):
        members = {f"follow {execution.id} {one}": 0 for one in ("", "hold", "force")}
        redis.zadd(keys.CONTINUATIONS, members)

        assert await store.children.settle_follow(execution.id, how, "RUNNING")

        assert left(redis) == rest


async def test_whoever_has_ended_is_held_up_no_more(engine, store, redis, outcomes):
    execution = await engine.submit(CHAIN)
    await store.lifecycle.cancel_execution(execution.id)
    redis.zadd(keys.CONTINUATIONS, {f"follow {execution.id} hold": 0})

    assert await store.children.settle_follow(execution.id, "", "CANCELLED")

    assert outcomes["settle_follow"] == ["settled"]
    assert left(redis) == set()


async def test_one_that_moved_on_is_followed_anew(engine, store, redis, outcomes):
    execution = await engine.start(CHAIN)
    redis.zadd(keys.CONTINUATIONS, {f"follow {execution.id} hold": 0})

    assert not await store.children.settle_follow(execution.id, "hold", "PAUSED")

    assert outcomes["settle_follow"] == ["moved"]
    assert left(redis) == {"hold"}
