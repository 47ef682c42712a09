"""A scheduler shows that it lives, also on a server that is full."""

from __future__ import annotations

from flowd.orchestrator.leases import LEASE_S
from flowd.scheduler.scheduler import Scheduler
from flowd.store.redis import keys
from tests.store.engine import CHAIN, configured


async def test_a_tick_is_noted_for_a_while(store, redis, outcomes):
    await store.health.metrics.beat()

    assert outcomes["note_tick"] == ["noted"]
    assert await store.health.metrics.ticked_ms() == int(redis.get(keys.SCHEDULER))
    assert 1_000 < redis.pttl(keys.SCHEDULER) <= 5_000


async def test_a_full_server_is_healed(engine, store, redis):
    """Its refusal of the sign of life counted as a server that was away, and while one is nobody
    loses his lease: the work of a host that had died was never given to others."""
    execution, _ = await engine.start_and_take(CHAIN, engine.worker("dead"))
    scheduler = Scheduler(store)

    with configured(redis, maxmemory=1):
        for now_s in (0.0, LEASE_S / 2, LEASE_S):
            assert await scheduler.tick(now_s)

    assert execution.state().queued == ["a#2 after 1 deaths"]
    assert await store.health.metrics.ticked_ms() is not None
