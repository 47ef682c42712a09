"""The checker of the soak: what holds is passed over in silence, and each damage is found."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import pytest
import redis as redis_py

from scripts.soaking.checker import check_processes, find_violations
from scripts.soaking.ledger import END, START, Note
from tests.flow import handlers
from tests.flow.engine import Engine, node, until, workflow

RETRY = {"max_attempts": 2, "delay_s": 0.01}


def notes(*said: tuple[str, str, str, int]) -> list[Note]:
    return [
        Note(phase, execution_id, node_id, attempt, os.getpid(), time.monotonic())
        for phase, execution_id, node_id, attempt in said
    ]


def as_done(execution_id: str, *node_ids: str) -> list[Note]:
    """The ledger of nodes that ran once, one after the other."""
    return notes(*((phase, execution_id, one, 1) for one in node_ids for phase in (START, END)))


async def test_what_ran_well_leaves_nothing_to_say(settings, redis):
    async with Engine(settings) as engine, engine.ticking():
        chain = await engine.run(workflow(node("A"), node("B", ["A"]), node("C", ["A", "B"])))
        failed = await engine.run(
            workflow(node("A", handler="fail"), node("B", ["A"]), node("C", ["B"]))
        )
        retried = await engine.run(
            workflow({**node("A", handler="fail_first", times=1), "retry": RETRY})
        )
        held = await engine.start(workflow(node("A", handler="held"), node("B", ["A"])))
        await until(lambda: "A" in handlers.GATES, "the start of A")
        await engine.store.lifecycle.pause_execution(held)
        assert find_violations(redis, [chain, failed, retried]) == []
        assert find_violations(redis, [held]) == [
            f"{held}: it was acknowledged and has not ended, it is PAUSED"
        ]
        await engine.store.lifecycle.resume_execution(held)
        handlers.GATES["A"].set()
        await engine.end(held)
        everything = [chain, failed, retried, held]
        ledger = as_done(chain, "A", "B", "C") + as_done(held, "A", "B") + as_done(failed, "A")
        ledger += notes(
            (START, retried, "A", 1), (END, retried, "A", 1), (START, retried, "A", 2)
        ) + notes((END, retried, "A", 2))
        assert find_violations(redis, everything, ledger) == []


Damage = Callable[[redis_py.Redis, str], Any]


def key(suffix: str) -> Callable[[str], str]:
    return lambda execution_id: f"workflow:{execution_id}{suffix}"


def set_to(suffix: str, value: str) -> Damage:
    return lambda redis, execution_id: redis.set(key(suffix)(execution_id), value)


def delete(suffix: str) -> Damage:
    return lambda redis, execution_id: redis.delete(key(suffix)(execution_id))


def both(*damages: Damage) -> Damage:
    return lambda redis, execution_id: [one(redis, execution_id) for one in damages]


def append_entry(redis: redis_py.Redis, execution_id: str) -> None:
    redis.xadd("workflow:tasks", {"execution_id": execution_id, "node_id": "A"})


def say_again(redis: redis_py.Redis, execution_id: str) -> None:
    redis.xadd("flowd:events", {"node.completed": f"{execution_id} A 1 1 1 1 w"})


def say_started(redis: redis_py.Redis, execution_id: str) -> None:
    for _ in range(2):
        redis.xadd("flowd:events", {"node.started": f"{execution_id} A 1 1 1 - w"})


def hold_without_lease(redis: redis_py.Redis, execution_id: str) -> None:
    append_entry(redis, execution_id)
    redis.xreadgroup("workflow_group", "nobody", {"workflow:tasks": ">"}, count=1)


def hold_what_is_gone(redis: redis_py.Redis, execution_id: str) -> None:
    hold_without_lease(redis, execution_id)
    ((entry_id, _),) = redis.xrange("workflow:tasks")
    redis.xdel("workflow:tasks", entry_id)


DAMAGES: dict[str, tuple[Damage, str]] = {
    "log listed nowhere": (
        lambda redis, one: redis.xadd(f"workflow:{one}:log:A:1", {"lines": "1 stdout x"}, "1-0"),
        "the log of A 1 is listed nowhere",
    ),
    "log that is gone": (
        lambda redis, one: redis.zadd(f"workflow:{one}:logs", {"A 1": 1}),
        "the log of A 1 is listed and gone",
    ),
    "too many attempts": (
        lambda redis, one: redis.hset(
            f"workflow:{one}:history", mapping={f"B {at}": "x" for at in range(1, 22)}
        ),
        "21 attempts before its newest are kept",
    ),
    "later than the newest": (
        lambda redis, one: redis.hset(f"workflow:{one}:history", "A 1", "1 1 1 1 w"),
        "attempt 1 is kept as earlier than 1",
    ),
    "last line is missing": (
        lambda redis, one: redis.set(f"workflow:{one}:node:A:output", '{"said":true}'),
        "it is COMPLETED, and its log lacks its last line",
    ),
    "gone": (delete(":status"), "it was acknowledged and is gone"),
    "not ended": (set_to(":status", "RUNNING"), "acknowledged and has not ended, it is RUNNING"),
    "not active": (set_to(":status", "RUNNING"), "RUNNING and not among the active"),
    "node not ended": (set_to(":node:B", "PENDING"), "it is COMPLETED and B PENDING"),
    "never opened": (
        both(set_to(":status", "RUNNING"), set_to(":node:B", "PENDING")),
        "it is PENDING behind its dependencies, all of which have ended",
    ),
    "no entry": (
        both(set_to(":status", "RUNNING"), set_to(":node:B", "QUEUED")),
        "B: it is QUEUED in a RUNNING execution and has 0 entries",
    ),
    "entry too many": (append_entry, "it is COMPLETED in a COMPLETED execution and has 1 entries"),
    "stranger": (lambda redis, _: append_entry(redis, "0" * 24), "1 entries of no execution"),
    "no lease": (hold_without_lease, "nobody: it holds 1 entries without a lease"),
    "pending is gone": (hold_what_is_gone, "which is no entry any more"),
    "before its dependency": (
        set_to(":node:A", "FAILED"),
        "it is COMPLETED before its dependencies A let it",
    ),
    "failed in a completed": (set_to(":node:B", "FAILED"), "it is COMPLETED and has a FAILED node"),
    "failed without a cause": (set_to(":status", "FAILED"), "it is FAILED and no node of it is"),
    "never ran": (
        both(
            set_to(":node:B", "FAILED"),
            lambda redis, one: redis.hdel(f"workflow:{one}:attempts", "B"),
        ),
        "it is FAILED, never ran, and no dependency of it FAILED",
    ),
    "miscounted": (
        lambda redis, one: redis.hset(f"workflow:{one}:run", "remaining", 2),
        "0 nodes are left and it counts 2",
    ),
    "unknown state": (set_to(":node:A", "DONE"), "A: its state is 'DONE'"),
    "no output": (delete(":node:A:output"), "it is COMPLETED without an output"),
    "no record": (delete(":attempts"), "it is COMPLETED without a record of its attempt"),
    "other output": (
        set_to(":node:A:output", '{"attempt": 7}'),
        "attempt 1 was committed, and the output is that of attempt 7",
    ),
    "active": (
        lambda redis, one: redis.sadd("workflows:active", one),
        "it is COMPLETED and among the active",
    ),
    "not finished": (
        lambda redis, one: redis.zrem("flowd:finished", one),
        "it is COMPLETED and not among the finished",
    ),
    "retry of nobody": (
        lambda redis, one: redis.zadd("flowd:retries", {f"{one} A": 1}),
        "A: it is COMPLETED and among the dates",
    ),
    "retry forgotten": (
        both(set_to(":status", "RUNNING"), set_to(":node:B", "RETRYING")),
        "it is RETRYING and not among the dates",
    ),
    "waits for nothing": (
        both(set_to(":status", "RUNNING"), set_to(":node:B", "WAITING")),
        "B: it is WAITING and nothing that wakes it is named",
    ),
    "waits without its date": (
        both(
            set_to(":status", "RUNNING"),
            set_to(":node:B", "WAITING"),
            lambda redis, one: redis.hset(f"workflow:{one}:waits", "B", "1 date 1 2 "),
        ),
        "B: it is WAITING and its date and its record say different things",
    ),
    "waits and was decided": (
        both(
            set_to(":status", "RUNNING"),
            set_to(":node:B", "WAITING"),
            lambda redis, one: redis.hset(f"workflow:{one}:waits", "B", "1 signal 1 - "),
            lambda redis, one: redis.hset(f"workflow:{one}:decisions", "B", "1 signal 1 {}"),
        ),
        "B: it is WAITING and was decided: signal",
    ),
    "has ended and waits": (
        lambda redis, one: redis.hset(f"workflow:{one}:waits", "A", "1 signal 1 - "),
        "A: it is COMPLETED and waits",
    ),
    "not carried on": (
        lambda redis, one: redis.zadd("flowd:continuations", {f"advance {one} A": 1}),
        "begun, and never carried on",
    ),
    "kept back": (
        lambda redis, one: redis.hset(f"workflow:{one}:parked", "A", 0),
        "it has ended and keeps nodes back",
    ),
    "committed twice": (say_again, "A: it has ended 2 times"),
    "begun twice": (say_started, "A 1: this attempt began 2 times"),
}


@pytest.mark.parametrize("damage", DAMAGES)
async def test_each_damage_is_found(settings, redis, damage):
    inflict, expected = DAMAGES[damage]
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.run(workflow(node("A"), node("B", ["A"])))
    assert find_violations(redis, [execution_id]) == []

    inflict(redis, execution_id)

    found = find_violations(redis, [execution_id])
    assert any(expected in one for one in found), found


MISCALLS: dict[str, tuple[Callable[[str], list[Note]], str]] = {
    "too early": (lambda one: as_done(one, "B", "A"), "B: it was started before its dependency A"),
    "the same attempt": (
        lambda one: notes((START, one, "A", 1)) + as_done(one, "A", "B"),
        "A: attempt 1 was started 2 times",
    ),
    "too often": (
        lambda one: notes((START, one, "A", 0)) + as_done(one, "A", "B"),
        "A: it was started 2 times, and 1 can be explained",
    ),
    "never": (lambda one: as_done(one, "A"), "B: it is COMPLETED and was never called to its end"),
    "another": (
        lambda one: as_done(one, "A") + notes((START, one, "B", 2), (END, one, "B", 2)),
        "B: attempt 2 was started, and attempt 1 committed",
    ),
    "not that": (
        lambda one: as_done(one, "A") + notes((START, one, "B", 0), (END, one, "B", 0)),
        "B: attempt 1 was committed, and never started",
    ),
}


@pytest.mark.parametrize("miscall", MISCALLS)
async def test_each_miscall_is_found(settings, redis, miscall):
    book, expected = MISCALLS[miscall]
    async with Engine(settings, workers=1) as engine:
        execution_id = await engine.run(workflow(node("A"), node("B", ["A"])))

    found = find_violations(redis, [execution_id], book(execution_id))

    assert any(expected in one for one in found), found
    assert find_violations(redis, [execution_id], as_done(execution_id, "A", "B")) == []


def test_a_process_that_is_missing_is_found():
    worker = {"name": "worker-1", "role": "worker", "state": "RUNNING"}
    status = {"processes": [worker]}
    assert check_processes(status, {"worker": 1}) == []
    assert check_processes(status, {"worker": 2}) == ["1 of 2 processes of the worker run"]
    status = {"processes": [{**worker, "state": "FATAL", "last_exit": "was killed"}]}
    assert "worker-1 is FATAL: was killed" in check_processes(status, {"worker": 1})
    assert check_processes(None, {}) == ["the supervisor does not answer"]
