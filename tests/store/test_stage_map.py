"""What a rerun takes over of a map: as it stood, and nothing once the execution has been made."""

from __future__ import annotations

import pytest

from flowd.store.redis import keys
from tests.store import maps
from tests.store.engine import CHAIN, ScriptedEngine, compiled, everything

AN_ID = "0123456789ab0123456789ab"


async def stood(engine: ScriptedEngine) -> str:
    """An execution of which the first of four items has ended, and two have a place."""
    worker = engine.worker()
    execution, (first, _) = await maps.expanded(engine, worker, 4, window=2)
    await worker.complete(first)
    return str(execution.id)


async def copy(engine: ScriptedEngine, source: str, again: str) -> str:
    submissions = engine.store.submissions
    outcome = await submissions._copies.copy(source, AN_ID, "fan", again, submissions._stage_nodes)
    return str(outcome)


async def begin(engine: ScriptedEngine) -> None:
    definition, _ = compiled(CHAIN)
    await engine.store.submissions._stage(AN_ID, definition, ["a"], None)


async def test_what_has_not_completed_is_to_run_and_what_has_is_counted(engine, redis, outcomes):
    source = await stood(engine)
    await begin(engine)

    assert await copy(engine, source, "failed") == "staged"

    assert outcomes["stage_map"] == ["staged", "staged"]
    assert redis.hgetall(keys.map_items(AN_ID, "fan")) == redis.hgetall(
        keys.map_items(source, "fan")
    )
    standing = redis.hgetall(keys.map_of(AN_ID, "fan"))
    assert (standing["n"], standing["ended"], standing["failed"]) == ("4", "1", "0")
    assert redis.lrange(keys.map_todo(AN_ID, "fan"), 0, -1) == ["1", "2", "3"]
    assert redis.get(keys.output(AN_ID, "fan.0")) == redis.get(keys.output(source, "fan.0"))


@pytest.mark.parametrize("again", ["failed", "all", "none"])
async def test_of_one_that_was_made_meanwhile_nothing_is_set_back(engine, redis, outcomes, again):
    """Its map was put back to how it stood at the beginning, while its items ran."""
    source = await stood(engine)
    await begin(engine)
    await copy(engine, source, "failed")
    redis.set(keys.status(AN_ID), "RUNNING")
    redis.hset(keys.map_of(AN_ID, "fan"), "ended", 3)
    redis.lpop(keys.map_todo(AN_ID, "fan"), 2)
    redis.zrem(keys.CONTINUATIONS, f"submit {AN_ID}")
    before = everything(redis)

    assert await copy(engine, source, again) == "exists"

    assert outcomes["stage_map"][-1] == "exists"
    assert everything(redis) == before


async def test_nothing_is_taken_over_for_a_submission_that_was_closed(engine, redis, outcomes):
    source = await stood(engine)
    before = everything(redis)

    assert await copy(engine, source, "all") == "closed"

    assert outcomes["stage_map"] == ["closed"]
    assert everything(redis) == before


async def test_of_many_items_each_waits_for_a_place(engine, redis):
    source = await stood(engine)
    await begin(engine)
    await copy(engine, source, "all")
    submissions = engine.store.submissions

    await submissions._copies._stage_map(source, AN_ID, "fan", 0, 0, *range(2500))

    waiting = redis.lrange(keys.map_todo(AN_ID, "fan"), 0, -1)
    assert waiting == [str(one) for one in range(2500)]
