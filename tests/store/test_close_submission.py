"""Closing a submission that broke off; test_submit_workflow has the races with the last call."""

from __future__ import annotations

from flowd.store.redis import keys
from tests.store.engine import CHAIN, State, everything

AN_ID = "0123456789ab0123456789ab"


async def test_an_execution_that_exists_stays_as_it_is(engine, redis, outcomes):
    execution = await engine.submit(CHAIN)
    before = everything(redis)

    await engine.store.submissions.discard_staged(execution.id)
    await engine.store.submissions.discard_staged(execution.id)

    assert outcomes["close_submission"] == ["exists", "exists"]
    assert everything(redis) == before
    assert execution.state() == State(
        status="PENDING", nodes=dict.fromkeys("abc", "PENDING"), counters={"remaining": "3"}
    )


async def test_a_closed_submission_is_removed_even_when_that_is_begun_twice(
    engine, redis, outcomes
):
    redis.set(f"workflow:{AN_ID}", '{"dag":{"nodes":[{"id":"a"},{"id":"b"}]}}')
    redis.set(f"workflow:{AN_ID}:node:a", "PENDING")
    redis.zadd(keys.CONTINUATIONS, {f"submit {AN_ID}": 1, f"discard {AN_ID}": 1})

    await engine.store.submissions.discard_staged(AN_ID)

    assert outcomes["close_submission"] == ["closed"]
    assert everything(redis) == {}
