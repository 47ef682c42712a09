"""put_limit.lua: whom a limit holds back no more starts at once."""

from __future__ import annotations

from flowd.store.limits import Limit
from flowd.store.redis import keys
from tests.store.limits import BROAD, ask, asking_for, holders, start, waiters


async def test_when_a_limit_is_lifted_with_a_hundred_waiting_all_run(engine, redis):
    worker, execution, _ = await start(engine, BROAD, max=0)
    assert execution.states() == {"WAITING": 120}

    assert await engine.store.tasks.limits.delete("api"), "lifted"

    assert execution.states() == {"QUEUED": 120}
    assert not await engine.store.tasks.limits.delete("api"), "unknown"
    await engine.finish(worker)
    assert execution.state().status == "COMPLETED"
    assert redis.zcard(keys.PLACES) == 0


async def test_when_a_limit_is_raised_as_many_more_start_at_once(engine):
    _, execution, admitted = await start(engine, BROAD, max=5)
    assert len(admitted) == 5

    assert await engine.store.tasks.limits.put(Limit("new", max=25)) == "made"
    assert await engine.store.tasks.limits.put(Limit("api", max=25)) == "changed"
    assert execution.states() == {"QUEUED": 25, "WAITING": 95}
    assert await engine.store.tasks.limits.put(Limit("api", max=25)) == "unchanged"


async def test_when_a_limit_is_lowered_nobody_starts_until_enough_have_ended(engine, redis):
    worker, _, admitted = await start(engine, BROAD, max=5)
    await engine.store.tasks.limits.put(Limit("api", max=3))

    await worker.complete(*admitted[:2])
    assert len(holders(redis)) == 3
    await worker.complete(admitted[2])
    assert len(holders(redis)) == 3
    assert (len(waiters(redis)), holders(redis)[-1]) == (114, "n005")


async def test_more_waiters_than_one_call_bears_are_left_to_a_scheduler(engine, redis):
    await engine.store.tasks.limits.put(Limit("api", max=0))
    worker = engine.worker()
    executions = []
    for _ in range(6):
        execution, entries = await engine.start_and_take(BROAD, worker)
        await ask(engine, entries, "api/x")
        executions.append(execution)

    await engine.store.tasks.limits.delete("api")
    assert (len(holders(redis, "api/x")), len(waiters(redis, "api/x"))) == (500, 220)
    assert (await engine.store.retries.dispatch()).next_in_s is None
    assert [one.states() for one in executions] == [{"QUEUED": 120}] * 6


async def test_of_a_limit_with_many_keys_all_that_wait_start_when_it_is_raised(engine, redis):
    """More keys than one call looks at: the next one goes on behind the last of them."""
    await engine.store.tasks.limits.put(Limit("api", max=0))
    execution, entries = await engine.start_and_take(BROAD, engine.worker())
    asking = [asking_for(one, f"api/{at:03}") for at, one in enumerate(entries)]
    assert await engine.store.tasks.limits.admit(asking) == ["waiting"] * 120

    await engine.store.tasks.limits.put(Limit("api", max=1))
    assert execution.states() == {"QUEUED": 100, "WAITING": 20}
    await engine.store.retries.dispatch()

    assert execution.states() == {"QUEUED": 120}
    assert redis.zcard(keys.LIMITS_DUE) == 0
