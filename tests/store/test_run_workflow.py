"""Running: an execution is made and started in one step, or not at all."""

from __future__ import annotations

import pytest

from flowd.errors import StoreUnavailable, UnknownExecution
from flowd.orchestrator.runs import run_workflow
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.making import Pin, Runs
from flowd.store.origins import Origin
from flowd.store.redis import keys, scripts
from flowd.workflow.concurrency import place_of
from tests.store.engine import (
    DIAMOND,
    STREAM,
    Execution,
    State,
    compiled,
    everything,
    fan,
    finish_continuations,
)
from tests.store.test_put_definition import ABOUT
from tests.store.test_submit_workflow import AN_ID, interrupt_last_call
from tests.store.test_trigger_workflow import roots

TIMES = {"submitted_ms", "triggered_ms"}


async def run(engine, graph, **said):
    definition, plan = compiled(graph)
    said = {"execution_id": AN_ID, **said}
    outcome = await engine.store.submissions.run_workflow(definition, plan, **said)
    return outcome, Execution(said["execution_id"], plan, engine._redis)


async def test_what_is_run_looks_as_if_it_had_been_submitted_and_triggered(engine, redis, outcomes):
    _, ran = await run(engine, DIAMOND, given_input=b'{"x":1}', traceparent="00-a-b-01")
    other = await engine.submit(DIAMOND)
    await engine.store.executions.trigger_workflow(other.id, b'{"x":1}', "00-a-b-01")

    assert outcomes["run_workflow"] == [["triggered"]]
    assert ran.state() == other.state()
    mine, its = (redis.hgetall(one.key(":run")) for one in (ran, other))
    assert {**mine, **dict.fromkeys(TIMES)} == {**its, **dict.fromkeys(TIMES)}
    assert mine.keys() > TIMES
    mine, its = ({one.replace(i.id, "") for one in redis.keys(f"*{i.id}*")} for i in (ran, other))
    assert mine == its
    of_mine, of_other = (fields for _, fields in redis.xrange(STREAM))
    assert {**of_mine, "execution_id": other.id} == of_other
    events = [list(fields.items()) for _, fields in redis.xrange(keys.EVENTS)]
    assert events[0] == [("execution.submitted", ran.id), ("execution.triggered", ran.id)]
    assert redis.zrange(keys.EXECUTIONS, 0, -1) == sorted([ran.id, other.id])


async def test_its_run_says_where_it_comes_from(engine, redis):
    origin = Origin(
        definition="report@3",
        labels={"team": "x", "env": "a b"},
        schedule="nightly",
        scheduled_at="2026-03-01T06:30:00+01:00",
    )
    _, execution = await run(engine, DIAMOND, origin=origin)

    said = redis.hgetall(execution.key(":run"))
    assert {name: said[name] for name in Origin._fields} == {
        "definition": "report@3",
        "labels": "env=a b\nteam=x",
        "schedule": "nightly",
        "scheduled_at": "2026-03-01T06:30:00+01:00",
    }


async def test_a_run_sent_again_after_a_lost_reply_changes_nothing(engine, redis, outcomes):
    worker = engine.worker()
    await run(engine, DIAMOND, given_input=b'{"x":1}')
    await worker.take_one()
    before = everything(redis)

    assert (await run(engine, DIAMOND, given_input=b'{"x":2}'))[0] == "exists"

    assert outcomes["run_workflow"] == [["triggered"], ["exists"]]
    assert everything(redis) == before


async def test_what_was_submitted_under_its_id_before_is_started(engine):
    """The older version of this call left off between its two steps."""
    definition, plan = compiled(DIAMOND)
    await engine.store.submissions.submit_workflow(definition, plan, execution_id=AN_ID)

    await run_workflow(engine.store, definition, plan, execution_id=AN_ID)

    assert Execution(AN_ID, plan, engine._redis).state().queued == ["a#1"]


@pytest.mark.parametrize("count", [1, DEPENDENTS_PER_CALL_MAX, DEPENDENTS_PER_CALL_MAX + 1, 2_401])
async def test_any_number_of_roots_is_queued_once(engine, outcomes, count):
    definition, plan = compiled(roots(count))

    await run_workflow(engine.store, definition, plan, execution_id=AN_ID)

    is_wide = count > DEPENDENTS_PER_CALL_MAX
    assert outcomes["run_workflow"] == [["continue" if is_wide else "triggered"]]
    assert Execution(AN_ID, plan, engine._redis).state() == State(
        status="RUNNING",
        nodes=dict.fromkeys(roots(count), "QUEUED"),
        counters={"remaining": str(count)},
        queued=[f"r{number}#1" for number in range(count)],
    )


async def test_wide_roots_are_opened_by_somebody_else_where_the_caller_dies(engine, plans):
    outcome, execution = await run(engine, roots(DEPENDENTS_PER_CALL_MAX + 1))
    assert outcome == "continue"
    assert execution.state().continuations == ["advance"]

    await finish_continuations(engine.store, plans)

    assert execution.states() == {"QUEUED": DEPENDENTS_PER_CALL_MAX + 1}


async def test_a_large_one_is_staged_and_then_runs_at_once(engine, redis, outcomes):
    definition, plan = compiled(fan(2_498))

    for _ in range(2):
        await run_workflow(engine.store, definition, plan, execution_id=AN_ID)

    assert outcomes["stage_nodes"] == ["staged", "staged", "exists"]
    assert outcomes["run_workflow"] == [["triggered"]]
    execution = Execution(AN_ID, plan, redis)
    assert execution.states() == {"QUEUED": 1, "PENDING": 2_499}
    state = execution.state()
    assert (state.counters, state.continuations) == ({"remaining": "2500"}, [])


@pytest.mark.parametrize("shared", [STREAM, keys.ACTIVE, keys.EXECUTIONS])
async def test_where_a_shared_key_is_damaged_nothing_is_written(engine, redis, shared):
    redis.hset(shared, "x", "y")

    with pytest.raises(StoreUnavailable, match="set aside"):
        await run(engine, DIAMOND, given_input=b"{}")

    # Where the stream was not there it is made first, and may stay.
    assert set(redis.scan_iter()) - {STREAM} == {shared} - {STREAM}


async def test_one_too_slow_to_find_what_it_staged_is_refused(engine, redis, outcomes, monkeypatch):
    async def discard():
        await engine.store.submissions.discard_staged(AN_ID)

    interrupt_last_call(monkeypatch, discard, scripts.RUN_WORKFLOW)
    with pytest.raises(StoreUnavailable, match="submit it again"):
        await run(engine, fan(1_500))

    assert outcomes["run_workflow"] == [["closed"]]
    assert redis.dbsize() == 0


async def test_what_was_deleted_is_not_run_again_under_its_key(engine, redis, outcomes):
    store = engine.store
    claimed = await store.submissions.idempotency.claim("key", b"body", AN_ID)
    _, execution = await run(engine, DIAMOND, key_digest=claimed.key_digest)
    await store.lifecycle.cancel_execution(execution.id)
    await store.finished.delete_execution(execution.id)

    with pytest.raises(UnknownExecution):
        await run(engine, DIAMOND, key_digest=claimed.key_digest)

    assert outcomes["run_workflow"] == [["triggered"], ["deleted"]]
    assert redis.keys(f"workflow:{AN_ID}*") == []


async def test_an_id_its_key_no_longer_stands_for_is_to_be_asked_for_again(engine, redis, outcomes):
    claimed = await engine.store.submissions.idempotency.claim("key", b"body", AN_ID)
    redis.flushall()

    with pytest.raises(StoreUnavailable, match="submit it again"):
        await run(engine, DIAMOND, key_digest=claimed.key_digest)

    assert outcomes["run_workflow"] == [["closed"]]
    assert redis.dbsize() == 0


async def run_saved(engine, ids, *, version=1, is_latest=True, **said):
    definition, plan = compiled(DIAMOND)
    pin = Pin("report", version, is_latest, plan.digest)
    runs = Runs([(one, b"") for one in ids], pin=pin, **said)
    return await engine.store.submissions.run_slice(definition, plan, runs)


async def save(engine, graph=DIAMOND):
    definition, plan = compiled(graph)
    return await engine.store.saved.put("report", definition, plan.digest, ABOUT)


async def test_many_are_made_and_started_in_one_call(engine, redis):
    ids = [f"{number:024x}" for number in range(50)]
    await save(engine)

    assert await run_saved(engine, ids) == ["triggered"] * 50

    _, plan = compiled(DIAMOND)
    for one in ids:
        assert Execution(one, plan, redis).state() == State(
            status="RUNNING",
            nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING", "d": "PENDING"},
            counters={"remaining": "4"},
            queued=["a#1"],
        )
    assert redis.zrange(keys.EXECUTIONS, 0, -1) == ids


@pytest.mark.parametrize("count", [1, 3])
async def test_nothing_is_made_of_what_is_not_saved_any_more(engine, redis, outcomes, count):
    ids = [f"{number:024x}" for number in range(count)]
    await save(engine)
    await save(engine, {"x": []})
    before = everything(redis)

    # The first version is not the latest; the second is another workflow; there is no third.
    assert await run_saved(engine, ids) == ["changed"]
    for version, is_latest in ((2, True), (2, False), (3, False)):
        assert await run_saved(engine, ids, version=version, is_latest=is_latest) == ["changed"]
    assert everything(redis) == before
    redis.hdel(keys.saved_definition("report"), "latest")
    assert await run_saved(engine, ids) == ["changed"]
    assert everything(redis).keys() == before.keys()
    redis.hset(keys.saved_definition("report"), "latest", "2")

    assert await run_saved(engine, ids, is_latest=False) == ["triggered"] * count
    assert outcomes["run_workflow"][0] == ["changed"]


async def test_of_many_under_one_key_what_is_there_stays_and_what_was_deleted_too(engine, redis):
    store = engine.store
    ids = [f"{number:024x}" for number in range(4)]
    await save(engine)
    claimed = await store.submissions.idempotency.claim("key", b"body", AN_ID)
    said = {"key_digest": claimed.key_digest, "claimant": AN_ID}
    await run_saved(engine, ids[:2], **said)
    await store.lifecycle.cancel_execution(ids[0])
    await store.finished.delete_execution(ids[0])

    again = await run_saved(engine, ids, **said)

    assert again == ["deleted", "exists", "triggered", "triggered"]
    assert redis.zrange(keys.EXECUTIONS, 0, -1) == ids[1:]
    assert (await store.submissions.idempotency.claim("key", b"body", "x")).execution_id == AN_ID
    redis.delete(keys.idempotency(claimed.key_digest))
    assert await run_saved(engine, ["f" * 24], **said) == ["closed"]


async def test_without_a_free_place_it_waits_or_is_refused(engine, redis, outcomes):
    for at, when_full in enumerate(("queue", "refuse")):
        definition, plan = compiled({"a": []}, name=when_full, concurrency={"when_full": when_full})
        place = place_of(plan.concurrency, {})
        for number in (1, 2):
            execution_id = f"{at}{number}".ljust(24, "0")
            await engine.store.submissions.run_workflow(
                definition, plan, execution_id=execution_id, place=place
            )

    assert outcomes["run_workflow"] == [["triggered"], ["waiting"], ["triggered"], ["refused"]]
    assert redis.get(keys.status("02".ljust(24, "0"))) == "PENDING"
    assert redis.exists(keys.status("12".ljust(24, "0"))) == 0
