"""Requeueing: a node that lost its worker gets a new entry, as its next attempt."""

from __future__ import annotations

import pytest

from flowd.store.entries import Entry, Garbage
from flowd.store.redis import keys
from flowd.store.tasks import DEATHS_MAX
from tests.store.engine import CHAIN, GROUP, STREAM, State, everything
from tests.store.test_retry_node import later, retry

AN_ID = "0123456789ab0123456789ab"


async def requeue(engine, entry, consumer="w1", *, is_death=False):
    """Only the outcome word."""
    outcome, _ = await engine.store.tasks.requeue_entry(entry.name, consumer, is_death=is_death)
    return outcome


async def test_a_requeued_node_waits_for_its_next_attempt(engine, redis):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await worker.claim(entry)

    outcome = await engine.store.tasks.requeue_entry(entry.name, "w1")

    assert outcome == ("requeued", entry)
    assert execution.state() == State(
        status="RUNNING",
        nodes={"a": "QUEUED", "b": "PENDING", "c": "PENDING"},
        counters={"remaining": "3"},
        attempts={"a": "#2 queued"},
        queued=["a#2"],
    )
    ((entry_id, fields),) = redis.xrange(STREAM)
    assert entry_id != entry.name
    assert fields == {
        "execution_id": execution.id,
        "node_id": "a",
        "attempt": "2",
        "plan": execution.plan.digest,
        "deaths": "0",
        "failures": "0",
    }


async def test_attempts_rise_strictly_however_often_a_node_is_requeued(engine):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    attempts = [entry.attempt]
    for _ in range(12):
        assert await requeue(engine, entry) == "requeued"
        (entry,) = await worker.take()
        attempts.append(entry.attempt)

    assert attempts == list(range(1, 14))
    assert await worker.complete(entry) == ["completed"]
    assert execution.state().attempts == {"a": "#13 ended on w1"}


async def test_a_requeue_sent_again_after_a_lost_reply_does_nothing(engine, redis):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await requeue(engine, entry, is_death=True)
    before = everything(redis)

    assert await requeue(engine, entry, is_death=True) == "gone"

    assert everything(redis) == before
    assert execution.state().queued == ["a#2 after 1 deaths"]


async def test_an_entry_that_another_worker_holds_stays_there(engine, redis):
    worker = engine.worker("w1")
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    before = everything(redis)

    assert await requeue(engine, entry, consumer="w2", is_death=True) == "gone"
    assert await requeue(engine, entry, consumer="") == "gone"

    assert everything(redis) == before
    assert execution.state().held == {"w1": ["a#1"]}


async def test_an_entry_whose_node_is_completed_is_gone(engine, redis):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await worker.complete(entry)
    before = everything(redis)

    assert await requeue(engine, entry, is_death=True) == "gone"
    assert await requeue(engine, entry, consumer="") == "gone"

    assert everything(redis) == before
    assert execution.state().queued == ["b#1"]


async def test_an_entry_deleted_by_hand_leaves_the_pending_list(engine, redis):
    worker = engine.worker()
    _, (entry,) = await engine.start_and_take(CHAIN, worker)
    redis.xdel(STREAM, entry.name)

    assert await requeue(engine, entry) == "gone"

    assert redis.xpending(STREAM, GROUP)["pending"] == 0


@pytest.mark.parametrize(
    "change",
    [
        lambda redis, key: redis.set(key(":status"), "FAILED"),
        lambda redis, key: redis.delete(key(":status")),
        lambda redis, key: redis.set(key(":node:a"), "COMPLETED"),
        lambda redis, key: redis.delete(key(":node:a")),
        lambda redis, key: (redis.delete(key(":node:a")), redis.lpush(key(":node:a"), "QUEUED")),
    ],
    ids=["execution ended", "execution gone", "node ended", "node gone", "node no string"],
)
async def test_an_entry_with_nothing_left_to_run_is_ended(engine, redis, change):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    change(redis, execution.key)
    before = everything(redis)

    outcome = await engine.store.tasks.requeue_entry(entry.name, "w1", is_death=True)

    assert outcome == ("ended", entry)
    assert redis.xlen(STREAM) == 0
    assert redis.xpending(STREAM, GROUP)["pending"] == 0
    after = everything(redis)
    assert before.pop(STREAM) != after.pop(STREAM)
    assert after == before


async def test_deaths_in_company_are_counted_up_to_the_last_but_one(engine):
    """Two may be bad luck; from then on the node runs alone, and its start is recorded first."""
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    deaths = []
    for _ in range(5):
        assert await requeue(engine, entry, is_death=True) == "requeued"
        (entry,) = await worker.take()
        deaths.append(entry.deaths)

    assert deaths == [1, 2, 2, 2, 2]
    assert execution.state().nodes["a"] == "QUEUED"


async def test_a_requeue_without_a_death_keeps_the_count(engine):
    worker = engine.worker()
    _, (entry,) = await engine.start_and_take(CHAIN, worker)
    deaths = []
    for is_death in (False, True, False, True, False):
        await worker.claim(entry)
        assert await requeue(engine, entry, is_death=is_death) == "requeued"
        (entry,) = await worker.take()
        deaths.append(entry.deaths)

    assert deaths == [0, 1, 1, 2, 2]


async def test_a_death_gives_no_failed_attempt_back(engine, store):
    """Else a node whose worker dies now and then is tried for ever."""
    worker = engine.worker()
    _, (entry,) = await engine.start_and_take(CHAIN, worker)
    await retry(worker, later(entry, failures=2, pause_ms=0))
    await store.retries.dispatch()
    entry = await worker.take_one()

    for is_death in (True, False):
        assert await requeue(engine, entry, is_death=is_death) == "requeued"
        entry = await worker.take_one()
        assert entry.failures == 2


async def test_what_was_recorded_of_the_attempt_before_is_not_kept_as_that_of_this_one(
    engine, redis
):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await worker.claim(entry)
    before = redis.hget(keys.attempts(execution.id), "a")
    assert await requeue(engine, entry) == "requeued"
    entry = await worker.take_one()
    redis.hset(keys.attempts(execution.id), "a", before)

    assert await requeue(engine, entry, is_death=True) == "requeued"

    history = redis.hgetall(keys.history(execution.id))
    assert history["a 1"] == f"{before}\nits worker gave it back"
    assert history["a 2"] == f"2 {entry.queued_ms} - - w1\nits worker died"


async def test_the_last_death_after_a_recorded_start_is_poison(engine, redis):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    for _ in range(DEATHS_MAX - 1):
        await worker.claim(entry)
        await requeue(engine, entry, is_death=True)
        (entry,) = await worker.take()
    await worker.claim(entry)
    before = everything(redis)

    outcome = await engine.store.tasks.requeue_entry(entry.name, "w1", is_death=True)

    assert outcome == ("poison", entry)
    assert entry.deaths == DEATHS_MAX - 1
    # The entry is left to the caller, who fails the node by it.
    assert everything(redis) == before
    assert execution.state().held == {"w1": [f"a#{DEATHS_MAX} after {DEATHS_MAX - 1} deaths"]}


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"x": "y"}, "names no"),
        ({"execution_id": AN_ID}, "names no"),
        ({"node_id": "a"}, "names no"),
        ({"execution_id": AN_ID, "node_id": ""}, "names no"),
        ({"execution_id": "../../etc", "node_id": "a"}, "names no"),
        ({"execution_id": AN_ID.upper(), "node_id": "a"}, "names no"),
        ({"execution_id": AN_ID, "node_id": "a", "attempt": "x"}, "not a number"),
        ({"execution_id": AN_ID, "node_id": "a", "deaths": "-"}, "not a number"),
    ],
)
async def test_an_entry_flowd_did_not_write_is_garbage_and_stays_to_be_buried(
    engine, redis, fields, reason
):
    """One whose id had the wrong form was once deleted, and its bytes with it."""
    worker = engine.worker()
    await engine.store.tasks.queues.ensure_groups()
    redis.xadd(STREAM, fields)
    (found,) = (await worker.exchange(read_max=1)).entries
    assert isinstance(found, Garbage)
    before = everything(redis)

    outcome, entry = await engine.store.tasks.requeue_entry(found.name, "w1", is_death=True)

    assert outcome == "garbage"
    assert isinstance(entry, Garbage)
    assert reason in entry.reason
    assert everything(redis) == before


@pytest.mark.parametrize("attempt", ["99999999999999999999", "1e3", "0x10", " 1", "-1"])
async def test_an_attempt_that_is_no_small_number_is_garbage(engine, redis, attempt):
    worker = engine.worker()
    execution = await engine.start(CHAIN)
    redis.xadd(STREAM, {"execution_id": execution.id, "node_id": "a", "attempt": attempt})
    _, entry = (await worker.exchange(read_max=2)).entries

    assert await requeue(engine, entry) == "garbage"


async def test_an_entry_with_only_the_documented_fields_is_requeued(engine, redis):
    worker = engine.worker()
    execution = await engine.start(CHAIN)
    redis.xtrim(STREAM, maxlen=0, approximate=False)
    redis.xadd(STREAM, {"execution_id": execution.id, "node_id": "a"})
    (entry,) = await worker.take()
    assert entry == Entry(entry.name, execution.id, "a", 1, "", 0)

    assert await requeue(engine, entry, is_death=True) == "requeued"

    assert execution.state().queued == ["a#2 after 1 deaths"]


async def test_nothing_is_written_for_a_group_that_is_gone(engine, redis):
    worker = engine.worker()
    _, (entry,) = await engine.start_and_take(CHAIN, worker)
    redis.xgroup_destroy(STREAM, GROUP)
    before = everything(redis)

    assert await requeue(engine, entry, is_death=True) == "gone"

    assert everything(redis) == before


@pytest.mark.parametrize("key", [":run", ":attempts"])
async def test_a_key_of_another_type_does_not_lose_the_node(engine, redis, key):
    """A script that failed half-way had deleted the entry and not yet added the next."""
    worker = engine.worker()
    execution = await engine.start(CHAIN)
    redis.xtrim(STREAM, maxlen=0, approximate=False)
    redis.xadd(STREAM, {"execution_id": execution.id, "node_id": "a"})
    (entry,) = await worker.take()
    redis.delete(execution.key(key))
    redis.set(execution.key(key), "x")

    assert await requeue(engine, entry) == "requeued"

    ((_, fields),) = redis.xrange(STREAM)
    assert (fields["node_id"], fields["attempt"]) == ("a", "2")
