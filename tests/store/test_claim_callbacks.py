"""Callbacks that are due are taken by one scheduler, and by another when it is not heard of."""

from __future__ import annotations

import pytest

from flowd.errors import CorruptExecution
from flowd.store.callbacks import CallbackState, Delivery, DueCallback
from flowd.store.executions import now_ms
from flowd.store.redis import keys
from flowd.workflow.ids import new_execution_id


def ended(redis, due_ms):
    """An execution that has ended, and whose receiver is to be told at this time."""
    execution_id = new_execution_id(now_ms())
    redis.set(keys.status(execution_id), "COMPLETED")
    redis.zadd(keys.CALLBACKS, {execution_id: due_ms})
    return execution_id


async def test_what_is_due_is_taken_once_the_oldest_first(store, redis, outcomes):
    first, second = ended(redis, 1), ended(redis, 2)
    later = ended(redis, now_ms() + 60_000)

    due, next_in_s = await store.callbacks.claim(10, repeat_after_ms=30_000)
    assert due == [DueCallback(first, 1), DueCallback(second, 1)]
    assert 25 < next_in_s <= 30
    assert (await store.callbacks.claim(10, repeat_after_ms=30_000))[0] == []
    assert outcomes["claim_callbacks"][0][:4] == [first, 1, second, 1]
    assert await store.callbacks.delivery(later) == Delivery(
        next_ms=int(redis.zscore(keys.CALLBACKS, later))
    )
    assert await store.callbacks.delivery(first) == Delivery(
        CallbackState.PENDING, 1, int(redis.zscore(keys.CALLBACKS, first))
    )


async def test_what_nobody_settled_is_taken_again_as_a_further_attempt(store, redis):
    execution_id = ended(redis, 1)

    for attempt in (1, 2, 3):
        due, _ = await store.callbacks.claim(1, repeat_after_ms=0)
        assert due == [DueCallback(execution_id, attempt)]


async def test_no_more_than_there_is_room_for(store, redis):
    ids = [ended(redis, number) for number in range(5)]

    assert [
        one.subject for one in (await store.callbacks.claim(2, repeat_after_ms=9999))[0]
    ] == ids[:2]
    assert [
        one.subject for one in (await store.callbacks.claim(9, repeat_after_ms=9999))[0]
    ] == ids[2:]


async def test_an_execution_that_is_gone_leaves_nothing(store, redis):
    gone = ended(redis, 1)
    redis.delete(keys.status(gone))

    assert await store.callbacks.claim(10, repeat_after_ms=30_000) == ([], None)
    assert redis.keys() == []


async def test_a_damaged_key_holds_up_no_other(store, redis):
    wrong, odd, good = ended(redis, 1), ended(redis, 2), ended(redis, 3)
    redis.set(keys.callback(wrong), "x")
    redis.hset(keys.callback(odd), "attempts", "many")

    due, _ = await store.callbacks.claim(10, repeat_after_ms=30_000)
    assert due == [DueCallback(good, 1)]
    assert redis.zrange(keys.CALLBACKS, 0, -1) == [good]
    for damaged in (wrong, odd):
        with pytest.raises(CorruptExecution):
            await store.callbacks.delivery(damaged)
