"""settle_places: what a hand took out of the sets is found again."""

from __future__ import annotations

import pytest

from flowd.scheduler.places import SettlePlaces
from flowd.store.redis import keys
from tests.store.test_places import ask, held, statuses, waiting


async def settle(store):
    duty = SettlePlaces(store)
    while await duty.run(0) is not None:
        pass


async def test_an_execution_that_is_gone_gives_its_place_to_who_waits(engine, store, redis):
    first, second = await ask(engine), await ask(engine)
    redis.delete(first.key(":status"))

    await settle(store)

    assert statuses(second) == ["RUNNING"]
    assert (held(redis), waiting(redis)) == ([second.id], [])


async def test_a_free_place_goes_to_who_waits(engine, store, redis, lines):
    first, second = await ask(engine), await ask(engine)
    redis.delete(keys.PLACE_HOLDERS)
    assert statuses(first, second) == ["RUNNING", "PENDING"]

    await settle(store)

    assert statuses(second) == ["RUNNING"]
    assert lines.of("places.settled") == [("warning", {"started": 1})]


async def test_who_holds_a_place_keeps_it_and_who_waits_goes_on_waiting(
    engine, store, redis, lines
):
    executions = [await ask(engine, given=b'{"customer":%d}' % (at % 120)) for at in range(300)]
    before = held(redis), waiting(redis), statuses(*executions)

    await settle(store)

    assert (held(redis), waiting(redis), statuses(*executions)) == before
    assert lines == []


@pytest.mark.parametrize("lost", [keys.PLACE_HOLDERS, keys.PLACE_WAITERS])
async def test_what_was_lost_of_both_sets_is_read_from_the_executions(engine, store, redis, lost):
    for _ in range(3):
        await ask(engine)
    before = held(redis), waiting(redis)
    redis.delete(lost)

    await store.executions.readmit_slice("0", 100)

    assert (held(redis), waiting(redis)) == before
