"""Leases: only one that still stands can be renewed."""

from __future__ import annotations

from flowd.store.redis import keys
from tests.store.engine import CHAIN, everything


async def test_a_renewal_moves_the_heartbeat(engine, redis, outcomes):
    await engine.store.tasks.enroll_worker("w1", b"{}")
    await engine.store.tasks.enroll_worker("w2", b"{}")

    assert await engine.store.tasks.renew_lease("w1")
    assert await engine.store.tasks.renew_lease("w1")

    assert outcomes["renew_lease"] == ["renewed", "renewed"]
    assert redis.hgetall(keys.LEASES) == {"w1": "2", "w2": "0"}


async def test_a_lease_that_was_revoked_is_lost_and_never_comes_back(engine, redis, outcomes):
    await engine.store.tasks.enroll_worker("w1", b"{}")
    await engine.store.tasks.revoke_lease("w1")
    before = everything(redis)

    assert not await engine.store.tasks.renew_lease("w1")
    assert not await engine.store.tasks.renew_lease("w1")

    assert outcomes["renew_lease"] == ["lost", "lost"]
    assert everything(redis) == before
    assert not redis.hexists(keys.LEASES, "w1")


async def test_a_retired_worker_has_lost_its_lease(engine, outcomes):
    await engine.start(CHAIN)
    await engine.store.tasks.enroll_worker("w1", b"{}")
    await engine.store.tasks.retire_worker("w1")

    assert not await engine.store.tasks.renew_lease("w1")

    assert outcomes["renew_lease"] == ["lost"]


async def test_leases_name_every_consumer_that_holds_entries_or_has_a_lease(engine):
    execution = await engine.start({"a": [], "b": []})
    await engine.store.tasks.enroll_worker("idle", b"{}")
    await engine.store.tasks.enroll_worker("busy", b"{}")
    await engine.store.tasks.renew_lease("busy")
    await engine.worker("busy").take(1)
    await engine.worker("stranger").take(1)

    assert await engine.store.tasks.leases() == {"idle": 0, "busy": 1, "stranger": None}
    assert execution.state().held == {"busy": ["a#1"], "stranger": ["b#1"]}


async def test_a_worker_says_who_it_is(engine):
    await engine.store.tasks.enroll_worker("w1", '{"host":"é"}'.encode())

    assert await engine.store.tasks.owners() == {"w1": '{"host":"é"}'}
