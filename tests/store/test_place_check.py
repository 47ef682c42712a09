"""The doctor and the checker on places: silent where all is well, and each damage is named."""

from __future__ import annotations

import pytest

from flowd.diagnosis.doctor import check, look
from flowd.store.redis import keys
from scripts.soaking.checker import read_executions
from scripts.soaking.place_checks import check_places
from tests.store.test_places import ask


async def findings(store, redis):
    """Of the doctor, then of the checker."""
    told = [one for each in check(await look(store)) for one in each.violations]
    ids = redis.zrange(keys.EXECUTIONS, 0, -1)
    checked = list(check_places(redis, {one.id: one for one in read_executions(redis, ids)}))
    return told, checked


async def test_while_some_hold_a_place_and_others_wait_there_is_nothing_to_say(
    engine, store, redis
):
    for customer in (b"acme", b"acme", b"other", b"acme"):
        await ask(engine, given=b'{"customer":"%b"}' % customer)
    assert await findings(store, redis) == ([], [])

    await engine.finish(engine.worker())

    assert await findings(store, redis) == ([], [])


DAMAGES = {
    "a place is lost": (keys.PLACE_HOLDERS, "holds no place"),
    "a turn is lost": (keys.PLACE_WAITERS, "not among those that do"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_what_a_hand_has_taken_out_is_found(engine, store, redis, damage):
    for _ in range(2):
        await ask(engine)
    key, words = DAMAGES[damage]

    redis.delete(key)

    told, checked = await findings(store, redis)
    assert any(words in one for one in told), told
    assert checked


async def test_a_place_of_who_has_ended_and_one_too_many_are_found(engine, store, redis):
    first, second = await ask(engine), await ask(engine)
    (member,) = redis.zrange(keys.PLACE_HOLDERS, 0, -1)
    digest = member.split(" ")[0]
    redis.zadd(keys.PLACE_HOLDERS, {f"{digest} {second.id}": 0})

    told, checked = await findings(store, redis)

    assert f"execution {second.id} holds a place, and does not run" in told
    assert f"of the key {digest} 2 executions run; at most 1 may" in told
    assert f"{digest}: 2 hold a place, and there are 1" in checked
    assert not any(first.id in one for one in told)
