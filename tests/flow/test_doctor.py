"""The doctor: silent about what is sound or under way, and loud about each damage."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py

from flowd.diagnosis import doctor
from flowd.diagnosis.doctor import Examination, check, examine, look
from flowd.orchestrator.executor import submit_workflow
from flowd.store.redis import keys
from tests.flow import handlers
from tests.flow.engine import Engine, node, until, workflow

STREAM, GROUP = "workflow:tasks", "workflow_group"
NOBODY = "0" * 24
RETRY = {"max_attempts": 2, "delay_s": 600}


def findings(found: Examination) -> list[str]:
    return [one for check in found.checks for one in check.violations]


async def test_a_redis_that_was_never_used_is_sound(store):
    found = await examine(store)
    assert findings(found) == []
    assert (found.workers, found.dead_letters) == (0, 0)


async def test_every_state_there_is_is_sound(settings):
    async with Engine(settings) as engine, engine.ticking():
        await engine.run(workflow(node("A"), node("B", ["A"])))
        await engine.run(workflow(node("A", handler="fail"), node("B", ["A"])))
        await submit_workflow(engine.store, workflow(node("A")))
        retried = await engine.start(workflow({**node("A", handler="fail"), "retry": RETRY}))
        held = await engine.start(workflow(node("A", handler="held"), node("B", ["A"])))
        paused = await engine.start(workflow(node("P", handler="held"), node("B", ["P"])))
        await until(lambda: {"A", "P"} <= handlers.GATES.keys(), "the start of A and P")
        await engine.store.lifecycle.pause_execution(paused)

        async def is_retrying() -> bool:
            return await engine.states(retried) == {"A": "RETRYING"}

        await until(is_retrying, "the retry")
        found = await examine(engine.store)
        assert findings(found) == []
        assert found.workers == 2
        assert found.queue is not None
        assert found.queue.in_flight == 2
        handlers.GATES["A"].set()
        handlers.GATES["P"].set()
        await engine.end(held)


async def test_nothing_is_found_while_much_is_under_way(settings):
    async with Engine(settings) as engine, engine.ticking():
        wide = workflow(*(node(f"A{at}") for at in range(50)))
        stop = asyncio.Event()

        async def keep_busy() -> None:
            while not stop.is_set():
                await engine.run(wide)

        busy = [asyncio.create_task(keep_busy()) for _ in range(3)]
        for _ in range(3):
            assert findings(await examine(engine.store, pause_s=0.1)) == []
        stop.set()
        await asyncio.gather(*busy)


async def test_the_doctor_writes_nothing(settings, redis):
    async with Engine(settings, workers=0) as engine:
        await engine.start(workflow(node("A"), node("B", ["A"])))
        redis.sadd(keys.ACTIVE, NOBODY)
        redis.config_resetstat()
        await examine(engine.store, pause_s=0)
    writes = {"set", "sadd", "srem", "zadd", "zrem", "hset", "hdel", "del", "evalsha", "xadd"}
    called = {name.removeprefix("cmdstat_") for name in redis.info("commandstats")}
    assert called & writes == set()
    assert "scan" in called


async def test_a_key_of_another_type_is_all_there_is_to_say(store, redis):
    redis.set("flowd:leases", "x")
    (found,) = findings(await examine(store))
    assert found == "the key 'flowd:leases' is a string and should be a hash"


Damage = Callable[[redis_py.Redis, str], Any]


def set_to(suffix: str, value: str) -> Damage:
    return lambda redis, one: redis.set(f"workflow:{one}{suffix}", value)


def forget(suffix: str) -> Damage:
    return lambda redis, one: redis.delete(f"workflow:{one}{suffix}")


def both(*damages: Damage) -> Damage:
    return lambda redis, one: [damage(redis, one) for damage in damages]


def append_entry(redis: redis_py.Redis, execution_id: str, node_id: str = "A") -> Any:
    return redis.xadd(STREAM, {"execution_id": execution_id, "node_id": node_id})


def take_an_entry(redis: redis_py.Redis, execution_id: str) -> None:
    append_entry(redis, execution_id)
    redis.xreadgroup(GROUP, "nobody", {STREAM: ">"}, count=1)


def take_and_delete(redis: redis_py.Redis, execution_id: str) -> None:
    take_an_entry(redis, execution_id)
    ((entry_id, _),) = redis.xrange(STREAM)
    redis.xdel(STREAM, entry_id)


def take_and_forget(redis: redis_py.Redis, execution_id: str) -> None:
    take_an_entry(redis, execution_id)
    redis.xgroup_delconsumer(STREAM, GROUP, "nobody")


# Of an execution that is COMPLETED with its nodes A and B.
DAMAGES: dict[str, tuple[Damage, str]] = {
    "not listed": (lambda redis, one: redis.zrem(keys.EXECUTIONS, one), "and not in the list"),
    "listed": (lambda redis, _: redis.zadd(keys.EXECUTIONS, {NOBODY: 0}), "has no status"),
    "active": (lambda redis, one: redis.sadd(keys.ACTIVE, one), "is active and is COMPLETED"),
    "active stranger": (
        lambda redis, _: redis.sadd(keys.ACTIVE, NOBODY),
        f"execution {NOBODY} is active and has no status",
    ),
    "not active": (set_to(":status", "RUNNING"), "is RUNNING and not active"),
    "ended": (set_to(":status", "RUNNING"), "counts as ended and is RUNNING"),
    "not ended": (
        lambda redis, one: redis.zrem(keys.FINISHED, one),
        "is COMPLETED and does not count as ended",
    ),
    "log listed nowhere": (
        lambda redis, one: redis.xadd(f"workflow:{one}:log:A:1", {"lines": "1 stdout x"}, "1-0"),
        "the log of node A, attempt 1, is not listed",
    ),
    "log that is gone": (
        lambda redis, one: redis.zadd(f"workflow:{one}:logs", {"A 1": 1}),
        "the log of node A, attempt 1, is listed and gone",
    ),
    "too many attempts": (
        lambda redis, one: redis.hset(
            f"workflow:{one}:history", mapping={f"B {at}": "x" for at in range(1, 22)}
        ),
        "node B keeps 21 attempts before its newest",
    ),
    "later than the newest": (
        lambda redis, one: redis.hset(f"workflow:{one}:history", "A 1", "1 1 1 1 w"),
        "node A keeps attempt 1, and its newest is 1",
    ),
    "unknown state": (set_to(":status", "DONE"), "is in the state 'DONE'"),
    "unknown node state": (set_to(":node:A", "DONE"), "node A is in the state 'DONE'"),
    "no definition": (both(set_to(":status", "RUNNING"), forget("")), "its definition is gone"),
    "no definition of what has ended": (forget(""), "its definition is gone"),
    "a definition that is no text": (
        both(forget(""), lambda redis, one: redis.lpush(f"workflow:{one}", "x")),
        "its definition is gone",
    ),
    "broken definition": (
        both(set_to(":status", "PAUSED"), set_to("", "{")),
        "its definition is broken",
    ),
    "node is gone": (
        both(set_to(":status", "RUNNING"), forget(":node:A")),
        "node A is in the state None",
    ),
    "no entry": (
        both(set_to(":status", "RUNNING"), set_to(":node:B", "QUEUED")),
        "node B is QUEUED and has 0 entries",
    ),
    "two entries": (
        both(
            set_to(":status", "RUNNING"),
            set_to(":node:B", "RUNNING"),
            lambda redis, one: [append_entry(redis, one, "B") for _ in range(2)],
        ),
        "node B is RUNNING and has 2 entries",
    ),
    "two entries of a node whose turn has not come": (
        both(
            set_to(":status", "RUNNING"),
            set_to(":node:B", "PENDING"),
            lambda redis, one: [append_entry(redis, one, "B") for _ in range(2)],
        ),
        "node B is PENDING and has 2 entries",
    ),
    "entry too many": (append_entry, "an entry of node A of execution"),
    "entry of nobody": (lambda redis, _: append_entry(redis, NOBODY), "which has no status"),
    "garbage": (lambda redis, _: redis.xadd(STREAM, {"x": "y"}), "it names no execution_id"),
    "retry forgotten": (
        both(set_to(":status", "RUNNING"), set_to(":node:B", "RETRYING")),
        "node B is RETRYING and waits for nothing",
    ),
    "retry of a completed": (
        lambda redis, one: redis.zadd(keys.RETRIES, {f"{one} A": 1}),
        "node A waits for a date and is COMPLETED",
    ),
    "wait forgotten": (
        both(set_to(":status", "RUNNING"), set_to(":node:B", "WAITING")),
        "node B is WAITING and nothing says for what",
    ),
    "wait without its date": (
        both(
            set_to(":status", "RUNNING"),
            set_to(":node:B", "WAITING"),
            lambda redis, one: redis.hset(f"workflow:{one}:waits", "B", "1 date 1 2 "),
        ),
        "node B is WAITING and no date wakes it",
    ),
    "wait for a child that is gone": (
        both(
            set_to(":status", "RUNNING"),
            set_to(":node:B", "WAITING"),
            lambda redis, one: redis.hset(f"workflow:{one}:waits", "B", f"1 child 1 - {NOBODY}"),
        ),
        f"node B is WAITING for its child {NOBODY}, which has no status",
    ),
    "child of one that has ended": (
        both(
            set_to(":status", "RUNNING"),
            lambda redis, one: redis.hset(f"workflow:{one}:run", "parent", f"{NOBODY} a 1 x 2"),
        ),
        f"runs, and its parent {NOBODY} has no status",
    ),
    "open node": (set_to(":node:B", "PENDING"), "is COMPLETED and its node B PENDING"),
    "no execution": (
        lambda redis, _: redis.hset(f"workflow:{NOBODY}:run", "x", 1),
        f"keys of execution {NOBODY}, which does not exist",
    ),
    "no lease": (take_an_entry, "consumer nobody holds 1 entries without a lease"),
    "held and gone": (take_and_delete, "which is no entry any more"),
    "held by nobody": (take_and_forget, "was handed out and nobody holds it"),
    "member of a set that nobody applies": (
        lambda redis, _: redis.hset(keys.SETS, "workflow a", "mine"),
        "'workflow a' belongs to the set 'mine', and is nothing that is applied",
    ),
    "set without a name": (
        lambda redis, _: redis.hset(keys.SETS, "definition a", ""),
        "'definition a' belongs to '', which is no name of a set",
    ),
    "not carried on": (
        lambda redis, one: redis.zadd(keys.CONTINUATIONS, {f"advance {one} A": 1}),
        "`advance A` was begun and never carried on",
    ),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_each_damage_is_found(settings, redis, damage):
    inflict, expected = DAMAGES[damage]
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.run(workflow(node("A"), node("B", ["A"])))
        await engine.run(workflow(node("A")))
        assert findings(await examine(engine.store)) == []

    inflict(redis, execution_id)

    engine = Engine(settings)
    found = await examine(engine.store, pause_s=0)
    await engine.store.close()
    assert any(expected in one for one in findings(found)), findings(found)
    assert not found.is_sound


async def test_what_is_gone_at_the_next_look_is_no_finding(settings, redis, monkeypatch):
    looks = []

    async def look_and_mend(store):
        looks.append(await look(store))
        redis.srem(keys.ACTIVE, NOBODY)
        return looks[-1]

    monkeypatch.setattr(doctor, "look", look_and_mend)
    engine = Engine(settings)
    redis.sadd(keys.ACTIVE, NOBODY)
    assert findings(await examine(engine.store, pause_s=0)) == []
    await engine.store.close()
    assert [any(one.violations for one in check(seen)) for seen in looks] == [True, False]


async def test_what_is_being_stored_has_keys_and_no_status(settings, redis):
    staged = "f" * 24
    redis.set(f"workflow:{staged}", "{}")
    seconds, _ = redis.time()
    redis.zadd(keys.CONTINUATIONS, {f"submit {staged}": seconds * 1000})
    engine = Engine(settings)
    assert findings(await examine(engine.store, pause_s=0)) == []
    redis.zadd(keys.CONTINUATIONS, {f"submit {staged}": 1})
    overdue = findings(await examine(engine.store, pause_s=0))
    await engine.store.close()
    assert f"keys of execution {staged}, which does not exist" in overdue
    assert len(overdue) == 2


async def test_the_doctor_sees_lists_of_labels_that_are_wrong(settings, redis):
    labelled = workflow(node("A")).model_copy(update={"labels": {"team": "x"}})
    async with Engine(settings, workers=0) as engine:
        lost, listed = [await submit_workflow(engine.store, labelled) for _ in range(2)]
        assert findings(await examine(engine.store, pause_s=0)) == []

        redis.zrem(keys.label("team=x"), lost)
        redis.zadd(keys.label("team=y"), {listed: 0, NOBODY: 0})
        redis.set(keys.label("team=z"), "x")
        found = findings(await examine(engine.store, pause_s=0))

    assert sorted(found) == sorted(
        [
            f"execution {lost} has the label 'team=x' and is not listed under it",
            f"execution {NOBODY} is listed under the label 'team=y' without it",
            f"execution {listed} is listed under the label 'team=y' without it",
            "the list of the label 'team=z' is of another type than flowd keeps there",
        ]
    )
