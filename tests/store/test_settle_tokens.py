"""A call is settled once, by what it has cost."""

from __future__ import annotations

import pytest

from flowd.store.budgets import TokenUsage
from flowd.store.redis import keys

AN_ID = "0123456789ab0123456789ab"
COST = TokenUsage(1, 6, 4, 10)


@pytest.fixture(autouse=True)
def an_execution(redis):
    redis.hset(keys.run(AN_ID), "nodes", 100)


async def test_the_cost_takes_the_place_of_the_reservation(store, outcomes):
    await store.budgets.reserve(AN_ID, "a", 1, tokens=60, budget=100)
    await store.budgets.settle(AN_ID, "a", 1, 10, COST)

    assert outcomes["settle_tokens"] == ["settled"]
    assert await store.budgets.usage(AN_ID) == TokenUsage(1, 6, 4, 10, spent=10, reserved=0)


async def test_a_call_settled_again_after_a_lost_reply_counts_once(store, outcomes):
    await store.budgets.settle(AN_ID, "a", 1, 10, COST)
    await store.budgets.settle(AN_ID, "a", 1, 10, COST)

    assert outcomes["settle_tokens"] == ["settled", "again"]
    assert (await store.budgets.usage(AN_ID)).total == 10


async def test_a_call_nobody_knows_the_cost_of_has_cost_all_that_was_set_aside(store):
    await store.budgets.reserve(AN_ID, "a", 1, tokens=60, budget=100)
    await store.budgets.settle(AN_ID, "a", 1, None, TokenUsage(1))

    assert await store.budgets.usage(AN_ID) == TokenUsage(1, spent=60)


async def test_the_attempts_of_a_node_add_up(store):
    for attempt in (1, 2):
        await store.budgets.settle(AN_ID, "a", attempt, None, COST)
    assert await store.budgets.usage(AN_ID) == TokenUsage(2, 12, 8, 20)


async def test_a_call_that_outlives_its_execution_leaves_no_key_behind(store, redis, outcomes):
    """One that was cancelled and deleted at once: the handler hears of it a moment later."""
    await store.budgets.reserve(AN_ID, "a", 1, tokens=60, budget=100)
    await store.finished.delete([AN_ID])
    await store.budgets.settle(AN_ID, "a", 1, 10, COST)

    assert outcomes["settle_tokens"] == ["gone"]
    assert redis.keys() == []


async def test_what_a_child_has_cost_makes_no_payer_of_one_that_is_gone(store, redis):
    root = "1" * 24
    redis.hset(keys.run(root), "nodes", 1)
    await store.budgets.reserve(AN_ID, "a", 1, tokens=60, budget=100, payer_id=root)
    redis.delete(keys.run(root))

    await store.budgets.settle(AN_ID, "a", 1, 10, COST, root)

    assert redis.exists(keys.run(root)) == 0
    assert (await store.budgets.usage(AN_ID)).total == 10
