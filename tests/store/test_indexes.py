"""The lists by state and by name: right behind every way a state changes, made whole where an older
version or a hand has left something out, and quick however much there is."""

from __future__ import annotations

from types import SimpleNamespace

import orjson
import pytest

from flowd.diagnosis.doctor import examine
from flowd.scheduler.hours import NoteHours
from flowd.scheduler.reconciler import Reconciler
from flowd.scheduler.repairs import Readmit
from flowd.scheduler.retention import DAY_MS, forget_finished
from flowd.store.executions import now_ms
from flowd.store.indexes import HOUR_MS, HOURS_KEPT, LISTED_STATES
from flowd.store.listing import Filters
from flowd.store.redis import keys
from flowd.workflow.graph import compile_plan
from scripts.soaking.checker import find_violations
from tests.store.engine import CHAIN, compiled, configured
from tests.store.test_listing import walk
from tests.store.test_places import ask

AN_ID = "0123456789ab0123456789ab"


def by_state(redis) -> dict[str, list[str]]:
    lists = {state: redis.zrange(keys.by_status(state), 0, -1) for state in LISTED_STATES}
    return {state: ids for state, ids in lists.items() if ids}


async def round_of(store, plans) -> Readmit:
    """A first round of the duty that mends the lists."""
    duty = Readmit(store, Reconciler(store, plans))
    while await duty.run(0.0) is not None:
        pass
    return duty


async def test_an_execution_is_in_the_list_of_its_state_all_the_way(engine, redis):
    store, worker = engine.store, engine.worker()
    one = await engine.submit(CHAIN)
    assert by_state(redis) == {"PENDING": [one.id]}
    await store.executions.trigger_workflow(one.id)
    assert by_state(redis) == {}
    await store.lifecycle.pause_execution(one.id)
    await store.lifecycle.pause_execution(one.id)
    assert by_state(redis) == {"PAUSED": [one.id]}
    await store.lifecycle.resume_execution(one.id)
    assert by_state(redis) == {}
    await engine.finish(worker)
    assert by_state(redis) == {"COMPLETED": [one.id]}
    assert redis.zrange(keys.NAMES, 0, -1) == [f"test\0{one.id}"]

    await store.finished.delete_execution(one.id)

    assert by_state(redis) == {}
    assert redis.zrange(keys.NAMES, 0, -1) == []


@pytest.mark.parametrize("before", ["PENDING", "RUNNING", "PAUSED"])
async def test_whatever_it_was_a_cancelled_one_is_in_the_list_of_those(engine, redis, before):
    one = await engine.submit(CHAIN) if before == "PENDING" else await engine.start(CHAIN)
    if before == "PAUSED":
        await engine.store.lifecycle.pause_execution(one.id)

    await engine.store.lifecycle.cancel_execution(one.id)

    assert by_state(redis) == {"CANCELLED": [one.id]}


async def test_what_waits_for_a_place_is_pending_until_it_has_one(engine, redis):
    first, second = await ask(engine), await ask(engine)
    assert by_state(redis) == {"PENDING": [second.id]}

    await engine.store.lifecycle.cancel_execution(first.id)

    assert second.state().status == "RUNNING"
    assert by_state(redis) == {"CANCELLED": [first.id]}


async def test_a_pause_ends_with_a_cancellation_that_leaves_a_finally_to_run(engine, redis):
    one = await engine.start({"a": [], "z": {"finally": True}})
    await engine.store.lifecycle.pause_execution(one.id)

    await engine.store.lifecycle.cancel_execution(one.id)

    assert redis.get(keys.status(one.id)) == "CANCELLING"
    assert by_state(redis) == {}


async def test_one_that_never_ran_is_in_no_list_once_it_is_deleted(engine, redis):
    one = await engine.submit(CHAIN)

    await engine.store.finished.delete_execution(one.id)

    assert by_state(redis) == {}
    assert redis.exists(keys.NAMES) == 0


async def test_what_is_damaged_is_failed_and_listed_so(engine, redis):
    one = await engine.start(CHAIN)
    redis.delete(keys.status(one.id))
    redis.rpush(keys.status(one.id), "x")

    await engine.store.executions.fail_execution(one.id, "damaged")

    assert by_state(redis) == {"FAILED": [one.id]}
    assert redis.get(keys.status(one.id)) == "FAILED"


async def test_retention_takes_what_it_forgets_out_of_the_lists(engine, redis):
    worker = engine.worker()
    await engine.start(CHAIN)
    await engine.finish(worker)

    await forget_finished(engine.store, 1, now_ms() + 2 * DAY_MS)

    assert by_state(redis) == {}
    assert redis.exists(keys.NAMES) == 0


async def test_what_an_older_version_has_written_is_listed_by_the_first_round(
    engine, redis, store, plans
):
    worker = engine.worker()
    done = await engine.start(CHAIN)
    await engine.finish(worker)
    runs, waits, held = (
        await engine.start(CHAIN), await engine.submit(CHAIN), await engine.start(CHAIN),
    )  # fmt: skip
    await store.lifecycle.pause_execution(held.id)
    expected, names = by_state(redis), redis.zrange(keys.NAMES, 0, -1)
    for key in (keys.NAMES, *map(keys.by_status, LISTED_STATES)):
        redis.delete(key)
    failed = Filters(statuses=frozenset({"PENDING", "COMPLETED"}), name="test")
    assert await walk(store, failed) == [waits.id, done.id]
    assert not await store.executions.indexes.are_complete()

    await round_of(store, plans)

    assert await store.executions.indexes.are_complete()
    assert by_state(redis) == expected
    assert redis.zrange(keys.NAMES, 0, -1) == names
    assert await walk(store, failed) == [waits.id, done.id]
    assert await walk(store, Filters(statuses=frozenset({"RUNNING"}))) == [runs.id]


async def test_what_stands_in_a_wrong_list_is_taken_out(engine, redis, store, plans):
    one = await engine.start(CHAIN)
    redis.zadd(keys.by_status("FAILED"), {one.id: 0, AN_ID: 0, "rubbish": 0})
    redis.zadd(keys.NAMES, {f"other\0{one.id}": 0, f"test\0{AN_ID}": 0})

    await round_of(store, plans)

    assert by_state(redis) == {}
    assert redis.zrange(keys.NAMES, 0, -1) == [f"test\0{one.id}"]


async def test_a_round_that_breaks_off_is_begun_anew(engine, redis, store, plans, monkeypatch):
    one = await engine.submit(CHAIN)
    redis.delete(keys.by_status("PENDING"))
    redis.zadd(keys.by_status("FAILED"), {one.id: 0})
    duty = Readmit(store, Reconciler(store, plans))
    whole = store.executions._client.run
    calls = SimpleNamespace(count=0)

    async def break_off(script, *arguments, **more):
        calls.count += 1
        if calls.count == 2:
            raise ConnectionError("gone")
        return await whole(script, *arguments, **more)

    monkeypatch.setattr(store.executions._client, "run", break_off)
    with pytest.raises(ConnectionError):
        await duty.run(0.0)
    while await duty.run(0.0) is not None:
        pass

    assert by_state(redis) == {"PENDING": [one.id]}
    assert await store.executions.indexes.are_complete()


async def test_a_damaged_list_is_set_aside_and_made_anew(engine, redis, store, plans):
    one = await engine.submit(CHAIN)
    duty = await round_of(store, plans)
    redis.delete(keys.by_status("PENDING"))
    redis.set(keys.by_status("PENDING"), "x")

    (aside,) = await store.tasks.set_aside()
    assert aside.endswith(keys.by_status("PENDING"))
    duty.distrust()
    while await duty.run(0.0) is not None:
        pass

    assert by_state(redis) == {"PENDING": [one.id]}


async def test_the_doctor_and_the_checker_see_every_kind_of_a_wrong_list(
    engine, redis, store, plans
):
    one, other = await engine.submit(CHAIN), await engine.submit(CHAIN)
    await round_of(store, plans)
    assert (await examine(store, pause_s=0.0)).is_sound
    assert find_violations(redis, []) == []
    redis.zrem(keys.by_status("PENDING"), one.id)
    redis.zadd(keys.by_status("FAILED"), {one.id: 0})
    redis.zrem(keys.NAMES, f"test\0{other.id}")
    redis.zadd(keys.NAMES, {f"x\0{one.id}": 0})

    found = [v for one in (await examine(store, pause_s=0.0)).checks for v in one.violations]

    assert set(found) == {
        f"execution {one.id} is listed as FAILED and is PENDING",
        f"execution {one.id} is listed under the name 'x' without it",
        f"execution {one.id} is PENDING and not listed so",
        f"execution {other.id} is called 'test' and not listed so",
    }
    assert len(find_violations(redis, [])) == 4


async def test_names_that_begin_alike_and_names_of_any_kind_are_told_apart(store, plans):
    ids = {}
    for name in (
        "night",
        "night build",
        "nightly",
        "day",
        "*",
        "n\u00e4cht",
        "a\0b",
        "a",
        "night!",
    ):
        named = compiled(CHAIN)[0].replace(b'"test"', orjson.dumps(name))
        ids[name] = await store.submissions.submit_workflow(named, compile_plan(named))
    await round_of(store, plans)

    for name, execution_id in ids.items():
        if not name.endswith("*"):
            assert await walk(store, Filters(name=name), 1) == [execution_id]
    nights = [one for name, one in ids.items() if name.startswith("night")]
    # Of one millisecond they stand in the order of their submission, on one page: any will do here.
    assert sorted(await walk(store, Filters(name="night*"), 2)) == sorted(nights)
    assert await walk(store, Filters(name="nobody")) == []
    assert await walk(store, Filters(name="nobody*")) == []
    assert sorted(await walk(store, Filters(name="*"))) == sorted(ids.values())


async def test_more_names_with_one_beginning_than_are_joined_are_found_all_the_same(
    store, plans, monkeypatch, redis
):
    monkeypatch.setattr("flowd.store.walks.NAMES_JOINED_MAX", 2)
    definition, plan = compiled(CHAIN)
    submitted = [await store.submissions.submit_workflow(definition, plan) for _ in range(4)]
    await round_of(store, plans)
    for number, one in enumerate(submitted):
        redis.hset(keys.run(one), "name", f"n{number}")
    redis.delete(keys.NAMES)
    await round_of(store, plans)

    assert sorted(await walk(store, Filters(name="n*"), 2)) == sorted(submitted)


async def test_what_has_ended_is_counted_by_the_hour_and_forgotten_in_time(engine, redis, store):
    indexes, worker = store.executions.indexes, engine.worker()
    redis.hset(keys.METRICS, "executions COMPLETED", 5)
    await indexes.note_hour(100)
    await engine.start(CHAIN)
    await engine.finish(worker)
    await indexes.note_hour(101)
    await indexes.note_hour(101)
    await store.lifecycle.cancel_execution((await engine.submit(CHAIN)).id)
    await indexes.note_hour(103)
    await engine.start(CHAIN)
    await engine.start(CHAIN)
    await engine.finish(worker)
    await indexes.note_hour(103)

    counts = await indexes.ended(range(99, 104))

    assert [(one["COMPLETED"], one["FAILED"], one["CANCELLED"]) for one in counts] == [
        (0, 0, 0), (1, 0, 0), (0, 0, 1), (0, 0, 0), (2, 0, 0),
    ]  # fmt: skip
    await indexes.forget_ended((102 + HOURS_KEPT) * HOUR_MS)
    assert {one.partition(" ")[0] for one in redis.hkeys(keys.ENDED)} == {"103"}


async def test_the_scheduler_notes_each_hour_once_and_a_full_server_later(
    store, redis, monkeypatch
):
    hour = 500_000
    monkeypatch.setattr("flowd.scheduler.hours.now_ms", lambda: hour * HOUR_MS + 5)
    duty = NoteHours(store, 0)
    with configured(redis, maxmemory=1):
        await duty.run(0.0)
    assert redis.exists(keys.ENDED) == 0
    for _ in range(2):
        await duty.run(0.0)
        redis.hset(keys.METRICS, "executions FAILED", 3)
    await NoteHours(store, 0).run(0.0)
    assert redis.hget(keys.ENDED, f"{hour} FAILED") == "0"
    hour += 1
    await duty.run(0.0)
    assert redis.hget(keys.ENDED, f"{hour} FAILED") == "3"


async def test_every_state_has_its_count(engine, store):
    worker = engine.worker()
    await engine.start(CHAIN)
    await engine.finish(worker)
    await engine.submit(CHAIN)
    await engine.start(CHAIN)
    await store.lifecycle.pause_execution((await engine.start(CHAIN)).id)

    assert await store.executions.indexes.counts() == {
        "PENDING": 1, "RUNNING": 1, "PAUSED": 1, "COMPLETED": 1, "FAILED": 0, "CANCELLED": 0,
    }  # fmt: skip


MANY = 100_000


@pytest.fixture
def many(redis):
    """So many executions as the scripts leave them, of which a few are rare, and old."""
    ids = [f"{1_700_000_000_000 + number:012x}{number:012x}" for number in range(MANY)]
    rare = {one: at for at, one in enumerate(ids[:120])}
    for begin in range(0, MANY, 5_000):
        some = ids[begin : begin + 5_000]
        with redis.pipeline(transaction=False) as pipe:
            for one in some:
                status, name = ("FAILED", "rare") if one in rare else ("COMPLETED", "common")
                pipe.set(keys.status(one), status)
                label = "team=rare" if one in rare else "team=common"
                fields = {"name": name, "nodes": 1, "submitted_ms": int(one[:12], 16)}
                pipe.hset(keys.run(one), mapping={**fields, "labels": label})
                pipe.zadd(keys.EXECUTIONS, {one: 0})
                pipe.zadd(keys.by_status(status), {one: 0})
                pipe.zadd(keys.NAMES, {f"{name}\0{one}": 0})
                pipe.zadd(keys.label(label), {one: 0})
            pipe.execute()
    redis.set(keys.INDEXED, "1")
    return ids


async def test_a_page_of_what_is_rare_among_100_000_costs_little_more_than_the_first(
    store, redis, many
):
    async def cost(filters: Filters) -> tuple[int, int]:
        """Commands that the server is asked for, and bytes that it sends."""
        redis.config_resetstat()
        page = await store.executions.listing.page(filters, 50, None)
        sent = redis.info("stats")["total_net_output_bytes"]
        calls = sum(one["calls"] for one in redis.info("commandstats").values())
        assert len(page.rows) == 50
        return calls, sent

    rare = frozenset({"FAILED"})
    wanted = {
        "status": Filters(statuses=rare),
        "name": Filters(name="rare"),
        "beginning of a name": Filters(name="rar*"),
        "label": Filters(labels=("team=rare",)),
        "all": Filters(statuses=rare, name="rare", labels=("team=rare",)),
        "two states": Filters(statuses=frozenset({"FAILED", "CANCELLED"})),
    }
    calls, sent = await cost(Filters())
    for what, filters in wanted.items():
        more_calls, more_sent = await cost(filters)
        assert more_calls <= calls + 10, what
        assert more_sent <= 2 * sent, what
    newest = await store.executions.listing.page(Filters(statuses=rare), 50, None)
    assert [row.execution_id for row in newest.rows] == many[119:69:-1]
