"""Labels: an execution stands in the list of each of its labels as long as it exists."""

from __future__ import annotations

import orjson
import pytest

from flowd.scheduler.retention import DAY_MS, forget_finished
from flowd.store.executions import now_ms
from flowd.store.listing import Filters
from flowd.store.origins import Origin
from flowd.store.redis import keys
from flowd.store.redis.client import RedisClient
from flowd.workflow.graph import compile_plan
from scripts.soaking.checker import find_violations
from tests.store.engine import CHAIN, compiled, everything, fan, finish_continuations
from tests.store.test_submit_workflow import AN_ID, connection_lost, interrupt_last_call

TEAM, ENV = "team=x", "env=prod"


def labelled(graph=CHAIN, **labels):
    document = {**orjson.loads(compiled(graph)[0]), "labels": labels or {"team": "x"}}
    definition = orjson.dumps(document)
    return definition, compile_plan(definition)


def listed(redis) -> dict[str, list[str]]:
    return {
        name.removeprefix(keys.label("")): redis.zrange(name, 0, -1)
        for name in redis.scan_iter(keys.label("*"))
    }


async def test_whatever_is_made_is_listed_under_its_labels(engine, redis):
    submissions = engine.store.submissions
    first = await submissions.submit_workflow(*labelled(team="x", env="prod"))
    large = await submissions.submit_workflow(*labelled(fan(1_500)))
    origin = Origin(labels={"team": "y", "day": "1"})
    await submissions.run_workflow(*labelled(), execution_id=AN_ID, origin=origin)
    plain = await engine.submit(CHAIN)

    assert listed(redis) == {
        TEAM: sorted([first, large]),
        ENV: [first],
        "team=y": [AN_ID],
        "day=1": [AN_ID],
    }
    assert redis.hget(keys.run(AN_ID), "labels") == "day=1\nteam=y"
    assert not redis.hexists(plain.key(":run"), "labels")
    assert find_violations(redis, []) == []


async def test_a_list_has_those_with_all_the_labels_asked_for_and_all_else(store):
    made = [
        await store.submissions.submit_workflow(*labelled(team=team, env=env))
        for team in "xy"
        for env in ("prod", "test")
    ]

    async def found(*labels: str, **more) -> list[str]:
        filters = Filters(labels=labels, **more)
        rows, after = [], None
        while True:
            page, after = await store.executions.listing.page(filters, 1, after)
            rows += [row.execution_id for row in page]
            if after is None:
                return rows

    # Two of one millisecond come in any order.
    ours = sorted(made[:2], reverse=True)
    assert await found(TEAM) == ours
    assert await found(TEAM, ENV) == await found(ENV, TEAM) == [made[0]]
    assert await found(TEAM, name="te*") == ours
    assert await found(TEAM, name="no") == await found("team=z") == []


async def test_one_that_is_deleted_leaves_every_list(store, redis):
    gone = await store.submissions.submit_workflow(*labelled(team="x", env="prod"))
    stays = await store.submissions.submit_workflow(*labelled())

    await store.finished.delete_execution(gone)

    assert listed(redis) == {TEAM: [stays]}


async def test_what_retention_forgets_leaves_every_list(store, redis):
    for _ in range(3):
        await store.submissions.submit_workflow(*labelled())
    for one in redis.zrange(keys.EXECUTIONS, 0, -1):
        await store.lifecycle.cancel_execution(one)

    await forget_finished(store, 1, now_ms() + 2 * DAY_MS)

    assert listed(redis) == {}
    assert redis.zcard(keys.EXECUTIONS) == 0


async def test_a_deletion_that_breaks_off_anywhere_leaves_nothing_in_the_end(
    engine, redis, plans, monkeypatch
):
    """Killed before each call but the first; the run hash, which names the labels, goes last."""
    # Of a script the server does not have yet, the first call deletes nothing.
    gone = await engine.store.submissions.submit_workflow(*labelled())
    await engine.store.finished.delete_execution(gone)
    converse, left = RedisClient.converse_freely, [0]

    async def dying(self, commands):
        left[0] -= 1
        if left[0] == 0:
            await connection_lost()
        return await converse(self, commands)

    steps = 1
    has_died = True
    while has_died:
        steps += 1
        execution_id = await engine.store.submissions.submit_workflow(*labelled())
        with monkeypatch.context() as patch:
            patch.setattr(RedisClient, "converse_freely", dying)
            left[0] = steps
            try:
                await engine.store.finished.delete_execution(execution_id)
            except Exception as error:  # noqa: BLE001 - the kill
                assert "gone" in str(error)
        has_died = left[0] <= 0
        await finish_continuations(engine.store, plans)
        assert listed(redis) == {}, steps
        assert redis.keys(f"*{execution_id}*") == [], steps
    assert steps > 5


async def test_what_never_came_to_be_is_in_no_list(engine, redis, monkeypatch):
    monkeypatch.setattr("flowd.store.submissions.new_execution_id", lambda _at_ms: AN_ID)
    interrupt_last_call(monkeypatch, connection_lost)
    with pytest.raises(Exception, match="gone"):
        await engine.store.submissions.submit_workflow(*labelled(fan(1_500)))
    assert listed(redis) == {}

    await engine.store.submissions.discard_staged(AN_ID)
    assert everything(redis) == {}


async def test_a_damaged_list_keeps_nobody_from_being_made_or_deleted(store, redis):
    redis.set(keys.label(TEAM), "x")

    execution_id = await store.submissions.submit_workflow(*labelled(team="x", env="prod"))
    assert redis.zrange(keys.label(ENV), 0, -1) == [execution_id]
    await store.finished.delete_execution(execution_id)

    assert set(redis.scan_iter()) == {keys.label(TEAM), keys.EVENTS, keys.METRICS}


async def test_the_checker_sees_both_kinds_of_a_wrong_list(store, redis):
    one = await store.submissions.submit_workflow(*labelled())
    other = await store.submissions.submit_workflow(*labelled(env="prod"))
    redis.zrem(keys.label(TEAM), one)
    redis.zadd(keys.label(ENV), {one: 0})

    found = find_violations(redis, [])

    assert f"{one}: has the label {TEAM} and is not listed under it" in found
    assert f"{one}: is listed under the label {ENV} without it" in found
    assert not [line for line in found if other in line]
