"""Submitting: an execution exists entirely or not at all."""

from __future__ import annotations

import pytest

from flowd.errors import StoreUnavailable, UnknownExecution
from flowd.store import submissions
from flowd.store.executions import NODES_PER_CALL_MAX
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import RedisClient
from tests.store.engine import DIAMOND, State, compiled, everything, fan, finish_continuations

AN_ID = "0123456789ab0123456789ab"


def interrupt_last_call(monkeypatch, act, last=scripts.SUBMIT_WORKFLOW):
    """Do `act` right before the call that makes a submitted execution exist."""
    run = RedisClient.run

    async def interrupted(self, script, names, *arguments):
        if script is last:
            await act()
        return await run(self, script, names, *arguments)

    monkeypatch.setattr(RedisClient, "run", interrupted)


async def connection_lost():
    raise StoreUnavailable("the connection is gone")


async def test_a_submitted_execution_is_pending_with_all_its_nodes(engine, redis, outcomes):
    execution = await engine.submit(DIAMOND)

    assert outcomes["submit_workflow"] == ["submitted"]
    assert execution.state() == State(
        status="PENDING",
        nodes=dict.fromkeys("abcd", "PENDING"),
        counters={"remaining": "4"},
    )
    definition, plan = compiled(DIAMOND)
    assert redis.get(execution.key()) == definition.decode()
    run = redis.hgetall(execution.key(":run"))
    assert (run["plan"], run["roots"]) == (plan.digest, "a")
    assert abs(int(run["submitted_ms"]) - redis.time()[0] * 1000) < 60_000
    assert set(redis.scan_iter()) == {
        execution.key(),
        execution.key(":status"),
        execution.key(":run"),
        keys.EXECUTIONS,
        keys.NAMES,
        keys.by_status("PENDING"),
        keys.EVENTS,
        *(execution.key(f":node:{node_id}") for node_id in "abcd"),
    }


async def test_a_submission_sent_again_after_a_lost_reply_changes_nothing(
    engine, redis, outcomes, monkeypatch
):
    monkeypatch.setattr(submissions, "new_execution_id", lambda _at_ms: AN_ID)
    execution = await engine.start(DIAMOND)
    before = everything(redis)

    await engine.submit(DIAMOND)

    assert outcomes["submit_workflow"] == ["submitted", "exists"]
    assert execution.state().status == "RUNNING"
    assert everything(redis) == before


async def test_equal_definitions_become_executions_of_their_own(engine):
    one, other = await engine.submit(DIAMOND), await engine.submit(DIAMOND)

    assert one.id != other.id
    assert one.plan.digest == other.plan.digest
    assert one.state() == other.state()


@pytest.mark.parametrize("count", [NODES_PER_CALL_MAX, NODES_PER_CALL_MAX + 1, 2_500])
async def test_a_large_workflow_is_staged_and_then_exists_at_once(
    engine, redis, outcomes, monkeypatch, count
):
    seen = {}

    async def look():
        seen["continuations"] = [one[:7] for one in redis.zrange(keys.CONTINUATIONS, 0, -1)]
        seen["statuses"] = list(redis.scan_iter("*:status"))

    interrupt_last_call(monkeypatch, look)
    execution = await engine.submit(fan(count - 2))

    is_staged = count > NODES_PER_CALL_MAX
    assert seen == {"continuations": ["submit "] if is_staged else [], "statuses": []}
    assert outcomes["submit_workflow"] == ["submitted"]
    assert execution.states() == {"PENDING": count}
    state = execution.state()
    assert (state.status, state.counters) == ("PENDING", {"remaining": str(count)})
    assert state.continuations == []
    assert redis.dbsize() == count + 7


async def test_a_submission_that_broke_off_is_unknown_and_is_removed(
    engine, redis, outcomes, monkeypatch
):
    monkeypatch.setattr(submissions, "new_execution_id", lambda _at_ms: AN_ID)
    interrupt_last_call(monkeypatch, connection_lost)
    with pytest.raises(StoreUnavailable):
        await engine.submit(fan(2_000))
    assert redis.dbsize() == 1_002 + 2
    with pytest.raises(UnknownExecution):
        await engine.store.executions.execution_status(AN_ID)

    await engine.store.submissions.discard_staged(AN_ID)

    assert outcomes == {"stage_nodes": ["staged", "staged"], "close_submission": ["closed"]}
    assert redis.dbsize() == 0


async def test_a_submission_that_went_through_is_not_discarded(engine, redis, outcomes):
    execution = await engine.submit(fan(1_500))
    # As if the reply of the last call had been lost, and its continuation with it.
    redis.zadd(keys.CONTINUATIONS, {f"submit {execution.id}": 1})

    await engine.store.submissions.discard_staged(execution.id)

    assert outcomes["close_submission"] == ["exists"]
    assert execution.states() == {"PENDING": 1_502}
    state = execution.state()
    assert (state.status, state.continuations) == ("PENDING", [])


async def test_a_submission_too_slow_to_find_what_it_staged_is_refused(
    engine, redis, outcomes, monkeypatch
):
    """A process that was frozen between two calls came back after its staged nodes had been
    removed, and made an execution exist that lacked them."""
    monkeypatch.setattr(submissions, "new_execution_id", lambda _at_ms: AN_ID)
    interrupt_last_call(monkeypatch, lambda: engine.store.submissions.discard_staged(AN_ID))

    with pytest.raises(StoreUnavailable, match="submit it again"):
        await engine.submit(fan(1_500))

    assert outcomes["close_submission"] == outcomes["submit_workflow"] == ["closed"]
    assert redis.dbsize() == 0


async def test_a_submission_closed_but_not_yet_removed_is_refused_and_its_removal_carried_on(
    engine, redis, plans, monkeypatch
):
    monkeypatch.setattr(submissions, "new_execution_id", lambda _at_ms: AN_ID)

    async def close_only():
        with monkeypatch.context() as patch:
            patch.setattr(engine.store.executions, "definition", lambda _: connection_lost())
            with pytest.raises(StoreUnavailable):
                await engine.store.submissions.discard_staged(AN_ID)

    interrupt_last_call(monkeypatch, close_only)
    with pytest.raises(StoreUnavailable, match="submit it again"):
        await engine.submit(fan(1_500))
    assert redis.zrange(keys.CONTINUATIONS, 0, -1) == [f"discard {AN_ID}"]

    await finish_continuations(engine.store, plans)

    assert redis.dbsize() == 0


async def test_a_large_submission_sent_again_leaves_an_execution_that_runs_alone(
    engine, redis, outcomes, monkeypatch
):
    """Under one Idempotency-Key the second staging once made nodes that ran PENDING again."""
    monkeypatch.setattr(submissions, "new_execution_id", lambda _at_ms: AN_ID)
    worker = engine.worker()
    execution, (first,) = await engine.start_and_take(fan(1_500), worker)
    await worker.complete(first)
    before = everything(redis)

    await engine.submit(fan(1_500))

    assert (outcomes["stage_nodes"], outcomes["submit_workflow"]) == (
        ["staged", "exists"],
        ["submitted"],
    )
    assert everything(redis) == before
    assert execution.state().continuations == ["advance first"]


async def test_of_two_large_submissions_at_once_the_slower_changes_nothing(
    engine, redis, monkeypatch
):
    monkeypatch.setattr(submissions, "new_execution_id", lambda _at_ms: AN_ID)
    run, calls = RedisClient.run, []

    async def overtaken(self, script, names, *arguments):
        calls.append(script.name)
        if calls == ["stage_nodes", "stage_nodes"]:
            await engine.start(fan(2_500))
            calls.append(everything(redis))
        return await run(self, script, names, *arguments)

    monkeypatch.setattr(RedisClient, "run", overtaken)
    await engine.submit(fan(2_500))

    assert calls[-1] == everything(redis)


async def test_a_submission_comes_too_early_while_an_older_one_of_its_id_is_removed(
    engine, redis, outcomes, monkeypatch
):
    monkeypatch.setattr(submissions, "new_execution_id", lambda _at_ms: AN_ID)
    redis.zadd(keys.CONTINUATIONS, {f"discard {AN_ID}": 0})

    with pytest.raises(StoreUnavailable, match="submit it again"):
        await engine.submit(fan(1_500))

    assert outcomes == {"stage_nodes": ["closed"]}
    assert list(redis.scan_iter("*:node:*")) == []


async def test_a_slow_submission_stages_nothing_once_it_was_removed(
    engine, redis, outcomes, monkeypatch
):
    """What it staged behind that nobody would ever have deleted."""
    monkeypatch.setattr(submissions, "new_execution_id", lambda _at_ms: AN_ID)
    run, calls = RedisClient.run, []

    async def frozen(self, script, names, *arguments):
        calls.append(script.name)
        if calls == ["stage_nodes", "stage_nodes"]:
            await engine.store.submissions.discard_staged(AN_ID)
        return await run(self, script, names, *arguments)

    monkeypatch.setattr(RedisClient, "run", frozen)
    with pytest.raises(StoreUnavailable, match="submit it again"):
        await engine.submit(fan(2_500))

    assert outcomes["stage_nodes"] == ["staged", "closed"]
    assert redis.dbsize() == 0


async def test_what_was_deleted_is_not_made_again_by_a_process_that_was_slow(
    engine, redis, outcomes
):
    """An Idempotency-Key outlived its execution, and ran the work again under the deleted id."""
    store = engine.store
    definition, plan = compiled(DIAMOND)
    claimed = await store.submissions.idempotency.claim("key", b"body", AN_ID)
    named = {"execution_id": AN_ID, "key_digest": claimed.key_digest}
    await store.submissions.submit_workflow(definition, plan, **named)
    await store.finished.delete_execution(AN_ID)

    with pytest.raises(UnknownExecution):
        await store.submissions.submit_workflow(definition, plan, **named)

    assert outcomes["submit_workflow"] == ["submitted", "deleted"]
    assert redis.keys("workflow:*") == []
    again = await store.submissions.idempotency.claim("key", b"body", "another")
    assert again == claimed._replace(is_deleted=True)
    assert 0 < redis.ttl(keys.idempotency(claimed.key_digest)) <= 24 * 60 * 60


async def test_an_id_its_key_no_longer_stands_for_is_to_be_asked_for_again(engine, redis, outcomes):
    definition, plan = compiled(DIAMOND)
    claimed = await engine.store.submissions.idempotency.claim("key", b"body", AN_ID)
    redis.flushall()

    with pytest.raises(StoreUnavailable, match="submit it again"):
        await engine.store.submissions.submit_workflow(
            definition, plan, execution_id=AN_ID, key_digest=claimed.key_digest
        )
    assert outcomes["submit_workflow"] == ["closed"]
    assert redis.dbsize() == 0
