"""Advancing: dependents that are too many for one call are opened slice by slice."""

from __future__ import annotations

import pytest

from flowd.errors import CorruptExecution, StoreUnavailable
from flowd.orchestrator.executor import advance_node
from flowd.scheduler.continuations import OVERDUE_S, FinishContinuations
from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX
from flowd.store.redis import keys
from tests.store.engine import Execution, everything, fan, finish_continuations

SLICE = DEPENDENTS_PER_CALL_MAX
WIDTH = 2 * SLICE + 203


async def advance_slice(engine, execution: Execution, offset: int, node_id: str = "first") -> int:
    node = execution.plan.nodes[node_id]
    dependents = [*((one, 1) for one in node.opens), *node.joins]
    return await engine.store.executions.advance_node(
        execution.id,
        node_id,
        execution.plan.digest,
        offset=offset,
        total=len(dependents),
        dependents=dependents[offset : offset + SLICE],
    )


@pytest.fixture
def wide(engine, runner):
    """A fan of WIDTH whose first node is completed, and nothing of it opened yet."""

    async def complete_first() -> Execution:
        worker = engine.worker("w0")
        execution, (entry,) = await engine.start_and_take(fan(WIDTH), worker)
        assert await worker.complete(entry) == ["completed"]
        return execution

    return runner.run(complete_first())


async def test_slices_open_every_dependent_once(engine, wide, outcomes):
    await advance_node(engine.store, wide.plan, wide.id, "first")

    assert outcomes["advance_node"] == [SLICE, 2 * SLICE, WIDTH]
    assert wide.states() == {"COMPLETED": 1, "QUEUED": WIDTH, "PENDING": 1}
    state = wide.state()
    assert state.queued == [f"m{number}#1" for number in range(WIDTH)]
    assert state.counters == {"remaining": str(WIDTH + 1)}
    assert state.continuations == []


async def test_a_slice_leaves_its_progress_for_the_next(engine, wide):
    assert await advance_slice(engine, wide, 0) == SLICE

    state = wide.state()
    assert state.counters == {"remaining": str(WIDTH + 1), "opened:first": str(SLICE)}
    assert state.continuations == ["advance first"]
    assert len(state.queued) == SLICE


async def test_a_slice_sent_again_opens_nothing_and_tells_how_far_it_is(engine, redis, wide):
    await advance_slice(engine, wide, 0)
    before = everything(redis)

    assert await advance_slice(engine, wide, 0) == SLICE
    assert await advance_slice(engine, wide, 2 * SLICE) == SLICE

    assert everything(redis) == before


async def test_an_advance_that_has_ended_may_be_begun_anew(engine, redis, wide):
    await advance_node(engine.store, wide.plan, wide.id, "first")
    before = everything(redis)

    await advance_node(engine.store, wide.plan, wide.id, "first")

    assert everything(redis) == before


async def test_another_process_goes_on_where_the_first_one_died(engine, plans, wide, outcomes):
    await advance_slice(engine, wide, 0)

    await finish_continuations(engine.store, plans)

    # The newcomer begins at 0, is told of the progress, and goes on from there.
    assert outcomes["advance_node"] == [SLICE, SLICE, 2 * SLICE, WIDTH]
    state = wide.state()
    assert state.queued == [f"m{number}#1" for number in range(WIDTH)]
    assert (state.counters, state.continuations) == ({"remaining": str(WIDTH + 1)}, [])


@pytest.mark.usefixtures("wide")
async def test_an_advance_that_is_under_way_is_left_alone(engine, redis, plans):
    before = everything(redis)
    duty = FinishContinuations(engine.store, plans, 0)

    await duty.run(0.0)
    await duty.run(OVERDUE_S - 1)

    assert everything(redis) == before


async def test_nodes_may_end_while_their_siblings_are_still_to_be_opened(engine, wide):
    worker = engine.worker()
    await advance_slice(engine, wide, 0)
    await engine.finish(worker)
    assert wide.state().status == "RUNNING"

    await advance_node(engine.store, wide.plan, wide.id, "first")
    await engine.finish(worker)

    state = wide.state()
    assert (state.status, state.counters["remaining"]) == ("COMPLETED", "0")
    assert state.counters["arrived:last"] == str(WIDTH)
    assert len(state.outputs) == WIDTH + 2


async def test_joins_among_many_dependents_wait_for_their_other_parents(engine):
    worker = engine.worker()
    count = SLICE + 100
    joins = {f"j{number}": ["a", "b"] for number in range(count)}
    execution, (a, b) = await engine.start_and_take({"a": [], "b": [], **joins}, worker)
    await worker.complete(a, b)

    await advance_node(engine.store, execution.plan, execution.id, "a")
    assert execution.states() == {"COMPLETED": 2, "PENDING": count}

    await advance_node(engine.store, execution.plan, execution.id, "b")
    assert execution.states() == {"COMPLETED": 2, "QUEUED": count}
    assert execution.state().queued == [f"j{number}#1" for number in range(count)]


async def test_an_execution_that_has_ended_is_not_advanced(engine, wide):
    await advance_slice(engine, wide, 0)
    await engine.store.executions.fail_execution(wide.id, "damaged")

    await advance_node(engine.store, wide.plan, wide.id, "first")

    state = wide.state()
    assert wide.states() == {"COMPLETED": 1, "QUEUED": SLICE, "PENDING": WIDTH + 1 - SLICE}
    assert (state.status, state.continuations) == ("FAILED", [])
    assert "opened:first" not in state.counters


async def test_a_damaged_progress_is_a_corrupt_execution(engine, redis, wide):
    redis.hset(wide.key(":run"), "opened:first", "many")
    before = everything(redis)

    with pytest.raises(CorruptExecution, match=wide.id):
        await advance_slice(engine, wide, 0)

    assert everything(redis) == before


async def test_a_damaged_count_of_arrivals_does_not_break_a_slice_in_two(engine, redis):
    """A script that failed half-way kept its writes, and the slice was opened a second time."""
    worker = engine.worker()
    middle = [f"m{number}" for number in range(SLICE + 100)]
    graph = {"a": [], "b": [], **{one: ["a"] for one in middle}, "j": ["b", "a"]}
    execution, (a, _b) = await engine.start_and_take(graph, worker)
    await worker.complete(a)
    redis.hset(execution.key(":run"), "arrived:j", "many")

    await advance_node(engine.store, execution.plan, execution.id, "a")

    state = execution.state()
    assert state.queued == [f"{one}#1" for one in middle]
    assert (state.nodes["j"], state.continuations) == ("PENDING", [])


@pytest.mark.parametrize(
    "damage",
    [
        lambda redis, key: redis.hset(key(":run"), "opened:first", "many"),
        lambda redis, key: (redis.delete(key(":run")), redis.set(key(":run"), "x")),
        lambda redis, key: redis.set(key(), "not JSON"),
        lambda redis, key: (redis.delete(key()), redis.lpush(key(), "a list")),
        lambda redis, key: redis.delete(key()),
    ],
    ids=["progress no number", "run no hash", "definition broken", "definition no string", "gone"],
)
async def test_what_cannot_be_advanced_fails_visibly_and_holds_nobody_up(
    engine, redis, plans, wide, damage
):
    """A continuation of an execution with a broken key once stopped those of all the others."""
    worker = engine.worker()
    good, (entry,) = await engine.start_and_take(fan(WIDTH), worker)
    await worker.complete(entry)
    redis.zadd(keys.CONTINUATIONS, {f"advance {wide.id} first": 0})
    damage(redis, wide.key)

    await finish_continuations(engine.store, plans)

    assert redis.get(wide.key(":status")) == "FAILED"
    assert good.states()["QUEUED"] == WIDTH
    assert redis.zcard(keys.CONTINUATIONS) == 0
    assert redis.smembers(keys.ACTIVE) == {good.id}


@pytest.mark.parametrize(
    "member", ["", "nonsense", "advance", "advance 1 2 3", "fail {id} no_such", "fail {id} last"]
)
async def test_a_continuation_that_makes_no_sense_is_dropped(engine, redis, plans, member):
    execution = await engine.start(fan(2))
    redis.zadd(keys.CONTINUATIONS, {member.format(id=execution.id): 1})

    await finish_continuations(engine.store, plans)

    assert redis.zcard(keys.CONTINUATIONS) == 0


@pytest.mark.usefixtures("wide")
async def test_a_continuation_waits_while_redis_is_away(engine, redis, plans, monkeypatch):
    before = everything(redis)

    async def unavailable(*_arguments, **_options):
        raise StoreUnavailable("gone")

    with monkeypatch.context() as patch:
        patch.setattr(engine.store.executions, "advance_node", unavailable)
        with pytest.raises(StoreUnavailable):
            await finish_continuations(engine.store, plans)

    assert everything(redis) == before
