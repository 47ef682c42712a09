"""Executions that run are among the active, and those that have ended among the finished."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from flowd.scheduler import repairs
from flowd.scheduler.reconciler import Reconciler
from flowd.scheduler.repairs import Readmit
from flowd.store.redis import keys
from tests.store.engine import CHAIN, everything
from tests.store.test_places import ask


async def test_whoever_is_where_it_should_be_stays_as_it_is(engine, redis, outcomes):
    worker = engine.worker()
    await engine.start(CHAIN)
    await engine.finish(worker)
    await engine.start(CHAIN)
    await engine.submit(CHAIN)
    before = everything(redis)

    assert await engine.store.executions.readmit_slice("0", 100) == ("0", [])

    assert outcomes["readmit_executions"] == [[]]
    assert everything(redis) == before


async def test_who_holds_a_place_or_waits_for_one_is_put_back_where_it_was(engine, redis):
    for _ in range(3):
        await ask(engine)
    before = everything(redis)
    assert redis.zcard(keys.PLACE_HOLDERS) == 1

    await engine.store.executions.readmit_slice("0", 100)
    assert everything(redis) == before
    redis.delete(keys.PLACE_HOLDERS, keys.PLACE_WAITERS)
    await engine.store.executions.readmit_slice("0", 100)
    assert everything(redis) == before


async def test_nothing_is_made_of_nothing(store, redis):
    assert await store.executions.readmit_slice("0", 100) == ("0", [])
    assert redis.dbsize() == 0


async def test_what_is_damaged_or_unknown_is_left_alone(store, redis):
    redis.zadd(keys.EXECUTIONS, {f"{number:024x}": 0 for number in range(3)})
    redis.set(keys.status(f"{0:024x}"), "RUNING")
    redis.rpush(keys.status(f"{1:024x}"), "RUNNING")
    before = everything(redis)

    assert await store.executions.readmit_slice("0", 100) == ("0", [])
    assert everything(redis) == before


def lose(redis, count):
    """So many executions nobody has taken note of; each hundredth runs."""
    with redis.pipeline(transaction=False) as pipe:
        for number in range(count):
            execution_id = f"{number:024x}"
            pipe.zadd(keys.EXECUTIONS, {execution_id: 0})
            pipe.set(keys.status(execution_id), "COMPLETED" if number % 100 else "RUNNING")
        pipe.execute()


def one_step_a_run(monkeypatch):
    clock = itertools.count()
    monkeypatch.setattr(repairs, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(repairs, "BUDGET_S", 1.5)


async def test_any_number_is_looked_at_in_slices(store, redis):
    lose(redis, 2_500)
    found: list[str] = []
    slices, cursor = 0, "0"
    while slices == 0 or cursor != "0":
        cursor, some = await store.executions.readmit_slice(cursor, 1_000)
        slices, found = slices + 1, found + some

    assert slices > 1
    assert sorted(found) == [f"{number:024x}" for number in range(0, 2_500, 100)]
    assert redis.scard(keys.ACTIVE) == 25
    assert redis.zcard(keys.FINISHED) == 2_475


async def test_what_a_run_has_no_time_for_follows_at_once(store, redis, plans, monkeypatch, lines):
    """Else each thousand executions take a minute, and who is lost among them waits for hours."""
    lose(redis, 4 * repairs.EXECUTIONS_PER_SLICE)
    one_step_a_run(monkeypatch)
    readmit = Readmit(store, Reconciler(store, plans))
    active = []

    while await readmit.run(0.0) == 0.0:
        active.append(redis.scard(keys.ACTIVE))

    assert len(set(active)) > 1
    assert redis.scard(keys.ACTIVE) == 4 * repairs.EXECUTIONS_PER_SLICE / 100
    said = {facts["execution_id"] for _, facts in lines.of("execution.readmitted")}
    assert said == redis.smembers(keys.ACTIVE)


@pytest.mark.parametrize("amid", ["walk", "sweep"])
async def test_who_distrusts_the_lists_amid_a_round_begins_another(
    store, redis, plans, monkeypatch, amid
):
    """What was looked at already may be lost since."""
    lose(redis, 600)
    redis.mset({keys.status(f"{number:024x}"): "RUNNING" for number in range(600)})
    monkeypatch.setattr(repairs, "EXECUTIONS_PER_SLICE", 100)
    one_step_a_run(monkeypatch)
    readmit = Readmit(store, Reconciler(store, plans))
    while redis.scard(keys.ACTIVE) == 0 or (amid == "sweep" and readmit._sweep is None):
        assert await readmit.run(0.0) == 0.0
    redis.delete(keys.ACTIVE)

    readmit.distrust()
    while await readmit.run(0.0) == 0.0:
        pass

    assert redis.scard(keys.ACTIVE) == 600


async def test_who_distrusts_the_lists_has_all_of_them_looked_at_from_the_first_on(
    engine, redis, store
):
    execution = await engine.start(CHAIN)
    begun = []
    readmit = Readmit(store, SimpleNamespace(begin_anew=lambda: begun.append(1)))
    while await readmit.run(0.0) == 0.0:
        pass
    assert await store.executions.indexes.are_complete()
    whole = {one: redis.zrange(one, 0, -1) for one in (keys.NAMES, keys.EXECUTIONS)}
    redis.delete(keys.ACTIVE, keys.NAMES)
    assert begun == []

    readmit.distrust()
    while await readmit.run(0.0) == 0.0:
        pass

    assert redis.smembers(keys.ACTIVE) == {execution.id}
    assert {one: redis.zrange(one, 0, -1) for one in whole} == whole
    # By who distrusts, and by what was found.
    assert begun == [1, 1]
