"""check_limits.lua: the net under all ways out."""

from __future__ import annotations

from flowd.scheduler.limits import CheckLimits
from flowd.store.redis import keys
from tests.store.limits import BROAD, holders, start, waiters


async def test_who_holds_a_place_or_waits_in_vain_is_struck_off_and_the_next_one_begins(
    engine, redis, lines
):
    worker, execution, (a,) = await start(engine, max=1)
    redis.zadd(keys.holders("api"), {f"{'0' * 24} x": 1})
    redis.zadd(keys.waiters("api"), {f"{'0' * 24} y": 1})
    await worker.complete(a._replace(holds=False))
    assert (holders(redis), waiters(redis)) == (["x", "a"], ["y", "b", "c"])

    assert await CheckLimits(engine.store).run(0.0) is None
    assert lines.of("limits.mended") == [("warning", {"nodes": 3})]

    assert (holders(redis), waiters(redis)) == (["b"], ["c"])
    assert execution.state().nodes == {"a": "COMPLETED", "b": "QUEUED", "c": "WAITING"}


async def test_what_is_right_is_left_alone(engine, redis):
    await start(engine, BROAD, max=7)
    before = holders(redis), waiters(redis)

    assert await engine.store.tasks.limits.check_slice("") == ("", 0)
    assert (holders(redis), waiters(redis)) == before
