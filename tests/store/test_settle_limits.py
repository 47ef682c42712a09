"""settle_limits.lua, and each way out: the place comes back in the same call, and exactly
one of those who wait begins.
"""

from __future__ import annotations

from typing import NamedTuple

import pytest

from flowd.orchestrator.executor import cancel_execution, pause_execution
from flowd.store.endings import RetryLater
from flowd.store.entries import Entry
from flowd.store.limits import Limit
from flowd.store.redis import keys, scripts
from tests.store.engine import Execution, ScriptedEngine, Worker
from tests.store.limits import BROAD, THREE, ask, holders, waiters
from tests.store.limits import start as started


class At(NamedTuple):
    """Where a node is that holds a place; each way out is called with it."""

    engine: ScriptedEngine
    worker: Worker
    execution: Execution
    entry: Entry


async def complete(at):
    assert await at.worker.complete(at.entry) == ["completed"]


async def fail(at):
    assert await at.worker.fail(at.entry) == "failed"


async def bury_as_dead_letter(at):
    failure = at.worker.failure(at.entry, dead_letter="it kills its workers")
    assert (await at.worker.exchange(failures=[failure])).failed == ["failed"]


async def fail_as_it_may(at):
    assert await at.worker.allow(at.entry) == ["completed"]


async def retry(at):
    record = at.worker.completion(at.entry).record
    later = RetryLater(at.entry, record, 3_600_000, 1, "boom")
    assert (await at.worker.exchange(failures=[later])).failed == ["retrying"]


async def skip(at):
    assert await at.worker.skip(at.entry) == ["completed"]


async def wait(at):
    assert await at.worker.wait(at.entry) == "waiting"


async def cancel(at):
    await cancel_execution(at.engine.store, at.execution.id)


async def cancel_with_finally(at):
    # What runs is told at its next claim, and its place is free then.
    await cancel_execution(at.engine.store, at.execution.id)
    assert await at.worker.claim(at.entry) == ["ended"]


async def complete_amid_a_cancellation(at):
    await cancel_execution(at.engine.store, at.execution.id)
    assert await at.worker.complete(at.entry) == ["ended"]


async def fail_amid_a_cancellation(at):
    await cancel_execution(at.engine.store, at.execution.id)
    assert await at.worker.fail(at.entry) == "ended"


async def park(at):
    await pause_execution(at.engine.store, at.execution.id)
    assert await at.engine.store.lifecycle.park_node(at.entry) == "parked"


async def delete(at):
    # As a process does that is killed before the nodes are marked.
    await at.engine.store.lifecycle.cancel_execution(at.execution.id)
    assert await at.engine.store.finished.delete_execution(at.execution.id) == "deleted"


async def forget(at):
    await at.engine.store.lifecycle.cancel_execution(at.execution.id)
    await at.engine.store.finished.delete([at.execution.id])


async def fail_as_damaged(at):
    assert await at.engine.store.executions.fail_execution(at.execution.id, "its keys are damaged")


async def end_outside_of_a_worker(at):
    unknowing = at.worker.failure(at.entry._replace(holds=False), dead_letter="ten workers died")
    assert await at.engine.store.tasks.end_attempt(unknowing) == "failed"


async def end_without_knowing_of_the_limit(at):
    # As a duty of the scheduler finds it: the commit came and its settling did not.
    assert await at.worker.complete(at.entry._replace(holds=False)) == ["completed"]
    await at.engine.store.tasks.limits.check_slice("")


WAYS_OUT = (
    complete,
    fail,
    bury_as_dead_letter,
    fail_as_it_may,
    retry,
    skip,
    wait,
    cancel,
    cancel_with_finally,
    complete_amid_a_cancellation,
    fail_amid_a_cancellation,
    park,
    delete,
    forget,
    fail_as_damaged,
    end_outside_of_a_worker,
    end_without_knowing_of_the_limit,
)


CANCELLED_BEFORE_FINALLY = (
    cancel_with_finally,
    complete_amid_a_cancellation,
    fail_amid_a_cancellation,
)


@pytest.mark.parametrize("leave", WAYS_OUT, ids=lambda way: way.__name__)
async def test_the_place_comes_back_in_the_same_call_and_exactly_one_waiter_begins(
    engine, redis, leave
):
    last = {"last": {"finally": True}} if leave in CANCELLED_BEFORE_FINALLY else {}
    one = {"a": {"limit": "api", "allow_failure": leave is fail_as_it_may}, "z": {}, **last}
    await engine.store.tasks.limits.put(Limit("api", max=1))
    worker = engine.worker()
    execution, (a, _) = await engine.start_and_take(one, worker)
    (a,), _ = await ask(engine, [a])
    others, entries = await engine.start_and_take(THREE, worker)
    assert (await ask(engine, entries))[1] == ["waiting"] * 3

    await leave(At(engine, worker, execution, a))

    assert others.states() == {"QUEUED": 1, "WAITING": 2}
    assert redis.zrange(keys.holders("api"), 0, -1) == [f"{others.id} a"]
    assert redis.hget(keys.places(execution.id), "a") is None
    entry = next(one for one in await worker.take() if one.execution_id == others.id)
    # It has a place already, and need not ask.
    assert (entry.node_id, entry.holds, entry.waits) == ("a", True, 0)
    assert await worker.complete(entry) == ["completed"]
    assert redis.zrange(keys.holders("api"), 0, -1) == [f"{others.id} b"]


async def test_what_ends_outside_of_a_worker_gives_back_in_one_transaction_and_once(engine, redis):
    """Whoever died in between left the place taken until a scheduler looked."""
    worker, execution, (a,) = await started(engine, max=1)
    unknowing = worker.failure(a._replace(holds=False), dead_letter="ten workers died")
    redis.config_resetstat()

    assert await engine.store.tasks.end_attempt(unknowing) == "failed"

    assert redis.info("commandstats")["cmdstat_exec"]["calls"] == 1
    assert execution.states() == {"FAILED": 1, "QUEUED": 1, "WAITING": 1}
    # Who asks again, as the reply was lost, finds it done: the one that is next goes on.
    assert await engine.store.tasks.end_attempt(unknowing) == "stale"
    assert execution.states() == {"FAILED": 1, "QUEUED": 1, "WAITING": 1}


@pytest.mark.parametrize("leave", [complete, fail, retry, wait], ids=lambda way: way.__name__)
async def test_an_ending_whose_script_was_forgotten_gives_back_all_the_same(engine, redis, leave):
    """Others have had the script loaded since that gives back, so it ran and found nothing."""
    worker, execution, (a,) = await started(engine, max=1)
    redis.script_flush()
    redis.script_load(scripts.SETTLE_LIMITS.text)

    await leave(At(engine, worker, execution, a))

    assert holders(redis) == ["b"]
    assert waiters(redis) == ["c"]


async def test_as_many_are_read_as_places_are_given_back_where_there_is_room(engine, redis):
    """One at a time, they would go to other workers, or wait for the next call."""
    # Behind a script that has to be loaded first, the read has happened before places are back.
    for script in (scripts.COMPLETE_NODES, scripts.SETTLE_LIMITS):
        redis.script_load(script.text)
    worker, execution, admitted = await started(engine, BROAD, max=8)
    assert execution.states() == {"QUEUED": 8, "WAITING": 112}
    completions = [worker.completion(one) for one in admitted]

    exchange = await worker.session.complete_and_claim(completions[:5], [], [], 1, 64)
    assert [len(exchange.entries), exchange.asked] == [5, 5]
    exchange = await worker.session.complete_and_claim(completions[5:], [], [], 1, 2)
    assert [len(exchange.entries), exchange.asked] == [2, 2]
    assert (await worker.session.complete_and_claim([], [], [], 0, 64)).asked == 0


async def test_a_place_that_nobody_holds_and_nobody_waits_for_is_forgotten(engine, redis):
    """Those who seemed to wait for it had ended."""
    worker, execution, (a,) = await started(engine, max=1)
    for one in "bc":
        redis.set(keys.node(execution.id, one), "COMPLETED")

    await worker.complete(a)

    assert (holders(redis), waiters(redis)) == ([], [])
    assert redis.zcard(keys.PLACES) == 0
    assert redis.exists(keys.places(execution.id)) == 0


async def test_a_date_that_is_earlier_than_was_planned_wakes_the_schedulers(engine, redis):
    """They would sleep until the later one."""
    await started(engine, per_s=0.001)
    assert (len(holders(redis)), len(waiters(redis))) == (1, 2)
    redis.delete(keys.RETRIES_WAKEUP)
    before_ms = redis.zscore(keys.LIMITS_DUE, "api")

    await engine.store.tasks.limits.put(Limit("api", per_s=0.01, burst=3))

    assert redis.zscore(keys.LIMITS_DUE, "api") == before_ms - 200_000
    assert redis.exists(keys.RETRIES_WAKEUP) == 1
