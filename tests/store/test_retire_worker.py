"""Retiring: a worker is forgotten once it holds nothing."""

from __future__ import annotations

from flowd.store.redis import keys
from tests.store.engine import CHAIN, GROUP, STREAM, everything


def consumers(redis) -> set[str]:
    return {row["name"] for row in redis.xinfo_consumers(STREAM, GROUP)}


async def test_a_worker_that_holds_nothing_is_forgotten(engine, redis, outcomes):
    worker, other = engine.worker("w1"), engine.worker("w2")
    for name in ("w1", "w2"):
        await engine.store.tasks.enroll_worker(name, b"{}")
    await engine.start({"a": [], "b": []})
    entry = await worker.take_one()
    await other.take_one()
    await worker.complete(entry)

    assert await engine.store.tasks.retire_worker("w1")

    assert outcomes["retire_worker"] == ["retired"]
    assert consumers(redis) == {"w2"}
    assert set(redis.hgetall(keys.LEASES)) == set(redis.hgetall(keys.WORKERS)) == {"w2"}


async def test_a_worker_that_still_holds_an_entry_stays(engine, redis, outcomes):
    """Deleting its consumer would destroy what is pending under its name."""
    worker = engine.worker("w1")
    await engine.store.tasks.enroll_worker("w1", b"{}")
    execution, _ = await engine.start_and_take(CHAIN, worker)
    before = everything(redis)

    assert not await engine.store.tasks.retire_worker("w1")

    assert outcomes["retire_worker"] == ["holding"]
    assert everything(redis) == before
    assert execution.state().held == {"w1": ["a#1"]}


async def test_a_worker_may_be_retired_twice_and_without_ever_having_worked(
    engine, redis, outcomes
):
    await engine.start(CHAIN)
    await engine.store.tasks.enroll_worker("w1", b"{}")

    assert await engine.store.tasks.retire_worker("w1")
    assert await engine.store.tasks.retire_worker("w1")

    assert outcomes["retire_worker"] == ["retired", "retired"]
    assert not redis.exists(keys.LEASES, keys.WORKERS)
