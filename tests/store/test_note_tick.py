"""A scheduler shows that it lives, also on a server that is full."""

from __future__ import annotations

from flowd.diagnosis.doctor import examine
from flowd.orchestrator.leases import LEASE_S
from flowd.scheduler.room import NoteRoom
from flowd.scheduler.scheduler import Scheduler
from flowd.store.redis import keys
from tests.store.engine import CHAIN, configured


async def test_a_tick_is_noted_for_a_while(store, redis, outcomes):
    await store.health.metrics.beat()

    assert outcomes["note_tick"] == ["noted"]
    assert await store.health.metrics.ticked_ms() == int(redis.get(keys.SCHEDULER))
    assert 1_000 < redis.pttl(keys.SCHEDULER) <= 5_000


async def test_a_full_server_is_told_of_once_and_once_that_it_has_room(store, redis, lines):
    """Nothing said so in the log until a worker had something to do."""
    duty = NoteRoom(store)

    def told():
        return [(level, event) for level, event, *_ in lines if event.startswith("redis.f")]

    with configured(redis, maxmemory=1):
        for _ in range(2):
            await duty.run(0.0)
        assert told() == [("warning", "redis.filled")]
        examined = await examine(store, pause_s=0)
        assert not examined.is_sound
        assert "redis is at its memory limit" in examined.checks[1].violations[0]
    for _ in range(2):
        await duty.run(0.0)
    assert told() == [("warning", "redis.filled"), ("info", "redis.freed")]
    assert (await examine(store, pause_s=0)).is_sound


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
