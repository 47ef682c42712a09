"""A worker takes its lease, whatever the server's state."""

from __future__ import annotations

from flowd.store.redis import keys
from tests.store.engine import configured


async def test_a_worker_enrolls_on_a_full_server(store, redis, outcomes):
    """One that was replaced there never came back, and `flowd start` gave up."""
    await store.tasks.queues.ensure_groups()

    with configured(redis, maxmemory=1):
        await store.tasks.enroll_worker("w1", b'{"pid":1}')
        assert await store.tasks.renew_lease("w1")

    assert outcomes["enroll_worker"] == ["enrolled"]
    assert (redis.hgetall(keys.LEASES), redis.hgetall(keys.WORKERS)) == (
        {"w1": "1"},
        {"w1": '{"pid":1}'},
    )
