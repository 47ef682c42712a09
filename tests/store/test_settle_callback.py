"""How an attempt of a callback went is written down once, and by the newest attempt only."""

from __future__ import annotations

from flowd.store.callbacks import CallbackState, Delivery, DueCallback
from flowd.store.executions import now_ms
from flowd.store.redis import keys
from tests.store.test_claim_callbacks import ended


async def claimed(store, redis):
    execution_id = ended(redis, 1)
    ((due,), _) = await store.callbacks.claim(1, repeat_after_ms=0)
    assert due.subject == execution_id
    return due


async def test_a_delivery_is_settled_and_leaves_the_queue(store, redis, outcomes):
    due = await claimed(store, redis)
    before = now_ms()

    assert await store.callbacks.settle(due, CallbackState.DELIVERED, status_code=204) == "settled"

    delivery = await store.callbacks.delivery(due.subject)
    assert before <= delivery.delivered_ms <= now_ms()
    assert delivery == Delivery(CallbackState.DELIVERED, 1, None, 204, None, delivery.delivered_ms)
    assert redis.zcard(keys.CALLBACKS) == 0
    # Its reply was lost, and it is said again.
    assert await store.callbacks.settle(due, CallbackState.DELIVERED, status_code=204) == "stale"
    assert outcomes["settle_callback"] == ["settled", "stale"]


async def test_a_failure_is_due_again_when_it_says(store, redis):
    due = await claimed(store, redis)

    assert (
        await store.callbacks.settle(
            due, CallbackState.PENDING, pause_ms=77_000, status_code=500, error="answered 500"
        )
        == "settled"
    )
    ((execution_id, due_ms),) = redis.zrange(keys.CALLBACKS, 0, -1, withscores=True)
    assert execution_id == due.subject
    assert 70_000 < due_ms - 1000 * redis.time()[0] < 78_001
    assert await store.callbacks.delivery(due.subject) == Delivery(
        CallbackState.PENDING, 1, int(due_ms), 500, "answered 500"
    )


async def test_a_final_failure_leaves_the_queue(store, redis):
    due = await claimed(store, redis)

    assert await store.callbacks.settle(due, CallbackState.FAILED, error="no") == "settled"
    assert redis.zcard(keys.CALLBACKS) == 0
    assert (await store.callbacks.delivery(due.subject)).state is CallbackState.FAILED


async def test_an_attempt_that_comes_back_late_changes_nothing(store, redis):
    late = await claimed(store, redis)
    ((newer,), _) = await store.callbacks.claim(1, repeat_after_ms=30_000)
    assert newer == DueCallback(late.subject, 2)

    assert await store.callbacks.settle(late, CallbackState.FAILED, error="late") == "stale"
    assert (await store.callbacks.delivery(late.subject)).state is CallbackState.PENDING
    assert await store.callbacks.settle(newer, CallbackState.DELIVERED) == "settled"


async def test_an_execution_that_is_gone_leaves_nothing(store, redis):
    due = await claimed(store, redis)
    redis.delete(keys.status(due.subject))

    assert await store.callbacks.settle(due, CallbackState.DELIVERED) == "unknown"
    assert redis.keys() == []
