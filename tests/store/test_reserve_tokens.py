"""Tokens are set aside before a call, and never more than the budget has."""

from __future__ import annotations

import asyncio
from functools import partial

import pytest

from flowd.store.budgets import Budgets, TokenUsage
from flowd.store.redis import keys

AN_ID = "0123456789ab0123456789ab"


@pytest.fixture(autouse=True)
def an_execution(redis):
    redis.hset(keys.run(AN_ID), "nodes", 100)


async def reserve(store, node_id, tokens, attempt=1, budget=100):
    found = await store.budgets.reserve(AN_ID, node_id, attempt, tokens=tokens, budget=budget)
    return tuple(found)


async def test_what_fits_is_set_aside(store):
    assert await reserve(store, "a", 60) == ("reserved", 0, 60)
    assert await store.budgets.usage(AN_ID) == TokenUsage(reserved=60)


async def test_a_reservation_said_again_is_the_same(store):
    await reserve(store, "a", 60)
    assert await reserve(store, "a", 60) == ("reserved", 0, 60)


async def test_what_fits_once_others_have_ended_has_to_wait(store):
    await reserve(store, "a", 60)
    assert await reserve(store, "b", 60) == ("occupied", 0, 60)
    await store.budgets.settle(AN_ID, "a", 1, 10, TokenUsage(1, 5, 5, 10))
    assert await reserve(store, "b", 60) == ("reserved", 10, 60)


async def test_what_can_never_fit_is_refused(store):
    assert await reserve(store, "a", 101) == ("exhausted", 0, 0)
    await reserve(store, "b", 60)
    await store.budgets.settle(AN_ID, "b", 1, 50, TokenUsage(1, 25, 25, 50))
    assert await reserve(store, "a", 51) == ("exhausted", 50, 0)


async def test_what_a_dead_attempt_set_aside_counts_as_spent(store):
    await reserve(store, "a", 30)
    assert await reserve(store, "a", 30, attempt=2) == ("reserved", 30, 30)


async def test_a_hundred_at_once_set_no_more_aside_than_there_is(store):
    found = await asyncio.gather(*(reserve(store, f"n{number}", 7) for number in range(100)))

    assert sum(outcome == "reserved" for outcome, _, _ in found) == 14
    assert (await store.budgets.usage(AN_ID)).reserved == 98
    assert isinstance(store.budgets, Budgets)


async def test_nothing_is_set_aside_for_an_execution_that_is_gone(store, redis):
    await store.finished.delete([AN_ID])

    assert await reserve(store, "a", 60) == ("gone", 0, 0)
    assert redis.keys() == []


async def test_a_child_spends_what_the_payer_above_it_has(store, redis):
    root, other = "1" * 24, "2" * 24
    for one in (root, other):
        redis.hset(keys.run(one), "nodes", 1)
    from_child = partial(store.budgets.reserve, other, "a", 1, budget=100, payer_id=root)
    assert tuple(await from_child(tokens=60)) == ("reserved", 0, 60)
    assert tuple(await from_child(tokens=60)) == ("reserved", 0, 60)
    at_root = await store.budgets.reserve(root, "a", 1, tokens=60, budget=100)
    assert at_root.outcome == "occupied"

    await store.budgets.settle(other, "a", 1, 20, TokenUsage(1, 5, 15, 20), root)

    assert await store.budgets.usage(root) == TokenUsage(1, 5, 15, 20, 20, 0)
    assert await store.budgets.usage(other) == TokenUsage(1, 5, 15, 20, 0, 0)


async def test_what_a_dead_child_set_aside_is_spent_where_it_was_set_aside(engine, store, redis):
    worker = engine.worker()
    root, _ = await engine.start_and_take({"a": []}, worker)
    child, (a,) = await engine.start_and_take({"a": []}, worker)
    await store.budgets.reserve(child.id, "a", 1, tokens=30, budget=100, payer_id=root.id)

    await worker.fail(a)

    assert (await store.budgets.usage(root.id))[4:] == (30, 0)
    assert (await store.budgets.usage(child.id))[4:] == (0, 0)
    assert not redis.hexists(child.key(":run"), "tokens:reserved:a")


async def test_what_a_child_of_a_root_that_is_gone_set_aside_is_spent_by_nobody(
    engine, store, redis
):
    worker = engine.worker()
    root, _ = await engine.start_and_take({"a": []}, worker)
    child, (a,) = await engine.start_and_take({"a": []}, worker)
    await store.budgets.reserve(child.id, "a", 1, tokens=30, budget=100, payer_id=root.id)
    redis.delete(root.key(":run"))

    await worker.fail(a)

    assert redis.exists(root.key(":run")) == 0
    assert not redis.hexists(child.key(":run"), "tokens:reserved:a")


async def test_nothing_is_set_aside_where_the_payer_is_gone(store):
    gone = await store.budgets.reserve(AN_ID, "a", 1, tokens=1, budget=100, payer_id="3" * 24)
    assert gone.outcome == "gone"
