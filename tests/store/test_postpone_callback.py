"""A callback that was taken and not tried is given back, and the attempt does not count."""

from __future__ import annotations

from flowd.store.callbacks import CallbackState, Delivery
from flowd.store.redis import keys
from tests.store.test_claim_callbacks import ended


async def test_it_comes_back_at_its_time_and_counts_for_nothing(store, redis, outcomes):
    execution_id = ended(redis, 1)
    ((due,), _) = await store.callbacks.claim(1, repeat_after_ms=30_000)

    assert await store.callbacks.postpone(due, 5_000) == "postponed"
    # Its reply was lost, and it is said again.
    assert await store.callbacks.postpone(due, 9_000) == "stale"

    assert outcomes["postpone_callback"] == ["postponed", "stale"]
    due_ms = int(redis.zscore(keys.CALLBACKS, execution_id))
    assert 4_000 < due_ms - 1000 * redis.time()[0] < 6_001
    assert await store.callbacks.delivery(execution_id) == Delivery(next_ms=due_ms)


async def test_what_was_settled_meanwhile_stays_settled(store, redis):
    execution_id = ended(redis, 1)
    ((due,), _) = await store.callbacks.claim(1, repeat_after_ms=30_000)
    await store.callbacks.settle(due, CallbackState.DELIVERED, status_code=204)

    assert await store.callbacks.postpone(due, 5_000) == "stale"

    assert redis.zcard(keys.CALLBACKS) == 0
    assert (await store.callbacks.delivery(execution_id)).state is CallbackState.DELIVERED
