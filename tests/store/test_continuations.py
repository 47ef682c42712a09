"""What was left for later is carried on, whatever becomes of the one beside it."""

from __future__ import annotations

import asyncio

import pytest

from flowd.diagnosis.doctor import examine
from flowd.diagnosis.observer import Observer
from flowd.errors import StoreError
from flowd.scheduler import continuations
from flowd.scheduler.continuations import OVERDUE_S, SLICES_MAX, FinishContinuations
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.redis import keys
from tests.store.engine import fan

WIDTH = DEPENDENTS_PER_CALL_MAX + 1
HOUR_MS = 3_600_000


@pytest.fixture
def duty(store, plans):
    return FinishContinuations(store, plans, 0)


async def two_wide(engine):
    """Two executions whose first node has ended, and whose dependents nobody has opened; the first
    began first."""
    found = []
    for _ in range(2):
        worker = engine.worker()
        execution, (first,) = await engine.start_and_take(fan(WIDTH), worker)
        await worker.complete(first)
        found.append(execution)
    return found


@pytest.mark.parametrize("error", [RuntimeError("a defect"), StoreError("redis refused")])
async def test_one_that_fails_holds_up_no_other_and_is_named(
    engine, store, redis, plans, duty, monkeypatch, lines, error
):
    bad, good = await two_wide(engine)
    advance = store.executions.advance_node

    async def advancing(execution_id, *arguments, **named):
        if execution_id == bad.id:
            raise error
        return await advance(execution_id, *arguments, **named)

    began_ms = redis.zscore(keys.CONTINUATIONS, f"advance {bad.id} first")
    with monkeypatch.context() as patch:
        patch.setattr(store.executions, "advance_node", advancing)
        for now_s in (0.0, OVERDUE_S, OVERDUE_S + 0.5, OVERDUE_S + 1.0):
            await duty.run(now_s)

        reason = f"{type(error).__name__}: {error}"
        # It has gone behind whatever is begun meanwhile.
        (first, _), *_ = redis.zscan(keys.CONTINUATIONS)[1]
        assert redis.zscore(keys.CONTINUATIONS, first) > began_ms
        assert good.states()["QUEUED"] == WIDTH
        assert bad.state().continuations == ["advance first"]
        explained = await Observer(store, plans).explain(bad.id)
        assert reason in explained.summary
        assert explained.nodes[0].reasons[-1].code == "set_aside"
        findings = [
            one for check in (await examine(store, pause_s=0)).checks for one in check.violations
        ]
        assert [one for one in findings if reason in one] == [
            f"`advance {bad.id} first` was begun and cannot be carried on: {reason}"
        ]

    await duty.run(OVERDUE_S + 2.9)
    assert bad.states().get("QUEUED") is None
    await duty.run(OVERDUE_S + 3.0)
    assert bad.states()["QUEUED"] == WIDTH
    assert redis.exists(keys.TROUBLES) == 0
    about = {"verb": "advance", "execution_id": bad.id, "node_id": "first"}
    assert lines.of("continuation.failed") == [
        ("error", {**about, "reason": reason, "retry_in_s": pause_s}) for pause_s in (1.0, 2.0)
    ]
    assert lines.of("continuation.finished") == [
        ("warning", {**about, "execution_id": one.id}) for one in (good, bad)
    ]


async def test_one_that_does_not_end_goes_behind_the_others_and_is_set_aside(
    engine, store, duty, monkeypatch
):
    bad, good = await two_wide(engine)
    monkeypatch.setattr(continuations, "BUDGET_S", 0.0)
    advance = store.executions.advance_node
    slices = []
    tries = []

    def new_slice():
        slices.append(asyncio.timeout(None))
        return slices[-1]

    async def advancing(execution_id, *arguments, **named):
        if execution_id == bad.id:
            tries.append(1)
            slices[-1].reschedule(0)
            await asyncio.Event().wait()
        return await advance(execution_id, *arguments, **named)

    monkeypatch.setattr(continuations, "new_slice", new_slice)
    monkeypatch.setattr(store.executions, "advance_node", advancing)
    await duty.run(0.0)
    await duty.run(OVERDUE_S)
    assert (len(tries), good.states().get("QUEUED")) == (1, None)
    await duty.run(OVERDUE_S)
    assert (len(tries), good.states()["QUEUED"]) == (1, WIDTH)
    for _ in range(SLICES_MAX + 2):
        await duty.run(OVERDUE_S)

    assert len(tries) == SLICES_MAX
    (trouble,) = await store.health.troubles.continuations()
    assert trouble.what == f"advance {bad.id} first"
    assert "did not end" in trouble.reason


async def test_a_clock_that_was_put_back_holds_none_of_them_up(engine, redis, duty):
    """Its age was that by the clock of whoever began it: an hour in the future, it was none."""
    worker = engine.worker()
    execution, (first,) = await engine.start_and_take(fan(WIDTH), worker)
    await worker.complete(first)
    redis.zincrby(keys.CONTINUATIONS, HOUR_MS, f"advance {execution.id} first")

    await duty.run(0.0)
    await duty.run(OVERDUE_S)

    assert execution.states()["QUEUED"] == WIDTH


async def test_a_submission_under_way_outlives_a_clock_put_forward(redis, duty):
    member = f"submit {'0' * 24}"
    redis.zadd(keys.CONTINUATIONS, {member: 1})
    await duty.run(0.0)
    await duty.run(OVERDUE_S)
    assert redis.zrange(keys.CONTINUATIONS, 0, -1) == [member]
    for now_s in (1, 2, 3):
        await duty.run(now_s * continuations.SUBMISSION_OVERDUE_S)
    assert redis.zcard(keys.CONTINUATIONS) == 0
