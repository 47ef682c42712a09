"""Staging nodes; test_submit_workflow has the races with other submissions of the same id."""

from __future__ import annotations

from flowd.store.redis import keys
from tests.store.engine import CHAIN, everything

AN_ID = "0123456789ab0123456789ab"


async def test_nodes_are_staged_while_their_submission_is_open(store, redis, outcomes):
    stage = store.submissions._stage_nodes
    redis.set(keys.definition(AN_ID), "{}")
    redis.zadd(keys.CONTINUATIONS, {f"submit {AN_ID}": 1})

    await stage(AN_ID, ["a", "b"], "PENDING")
    for verb in ("discard", "delete"):
        redis.zadd(keys.CONTINUATIONS, {f"{verb} {AN_ID}": 1})
        await stage(AN_ID, ["c"], "PENDING")
        redis.zrem(keys.CONTINUATIONS, f"{verb} {AN_ID}")
    redis.delete(keys.definition(AN_ID))
    await stage(AN_ID, ["c"], "PENDING")
    redis.set(keys.definition(AN_ID), "{}")
    redis.zrem(keys.CONTINUATIONS, f"submit {AN_ID}")
    await stage(AN_ID, ["d"], "PENDING")

    assert outcomes["stage_nodes"] == ["staged", "closed", "closed", "closed", "closed"]
    assert redis.mget(keys.node(AN_ID, one) for one in "abcd") == ["PENDING", "PENDING", None, None]


async def test_an_execution_that_exists_stays_as_it_is(engine, redis, outcomes):
    execution = await engine.start(CHAIN)
    before = everything(redis)
    redis.zadd(keys.CONTINUATIONS, {f"submit {execution.id}": 1})

    await engine.store.submissions._stage_nodes(execution.id, ["a", "b", "c"], "PENDING")

    assert outcomes["stage_nodes"] == ["exists"]
    assert everything(redis) == before
