"""The soak's checker on limits: silent where all is well, and each damage is named."""

from __future__ import annotations

from math import inf

import pytest

from flowd.store.redis import keys
from scripts.soaking.checker import Execution, read_executions
from scripts.soaking.ledger import END, START, Note
from scripts.soaking.limit_checks import (
    PACED,
    TIDE,
    changes_of,
    check_calls,
    check_changes,
    check_limits,
    check_rates,
    check_readers,
)
from tests.store.limits import BROAD, THREE, start


def findings(redis):
    ids = redis.zrange(keys.EXECUTIONS, 0, -1)
    return list(check_limits(redis, {one.id: one for one in read_executions(redis, ids)}))


async def test_while_some_hold_places_and_others_wait_there_is_nothing_to_say(engine, redis):
    worker, execution, admitted = await start(engine, BROAD, max=3)
    assert findings(redis) == []
    await worker.complete(*admitted)
    assert findings(redis) == []
    await engine.finish(worker)
    assert (findings(redis), execution.state().status) == ([], "COMPLETED")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda redis, one: redis.set(keys.node(one, "a"), "COMPLETED"), "holds api and does not"),
        (lambda redis, one: redis.set(keys.node(one, "b"), "QUEUED"), "waits for api no more"),
        (lambda redis, _: redis.delete(keys.holders("api")), "a place is free, and 2 wait"),
        (lambda redis, _: redis.hset(keys.LIMITS, "api", "0 - -"), "1 hold a place, and there"),
        (lambda redis, one: redis.set(keys.status(one), "FAILED"), "holds or awaits a place"),
    ],
)
async def test_each_damage_is_named(engine, redis, damage, said):
    _, execution, _ = await start(engine, THREE, max=1)
    damage(redis, execution.id)
    assert said in " ".join(findings(redis))


def calls(*spans):
    """Of nodes a, b, c… by their attempt, begin and end."""
    notes = []
    for at, (attempt, begin, end) in enumerate(spans):
        node = "abcdefgh"[at]
        notes.append(Note(START, "e", node, attempt, 1, begin))
        if end is not None:
            notes.append(Note(END, "e", node, attempt, 1, end))
    return sorted(notes, key=lambda one: one.at_s)


@pytest.mark.parametrize(
    ("spans", "said"),
    [
        ([(1, 0, 2), (1, 2.1, 3)], []),
        ([(1, 0, 2), (1, 1, 3)], ["soak: 2 calls at once"]),
        # Whose worker was killed says no end.
        ([(1, 0, None), (1, 1, 3)], []),
    ],
)
def test_calls_at_once_are_counted_by_the_ledger(spans, said):
    nodes = [{"id": one, "handler": "x", "limit": "soak"} for one in "abc"]
    one = Execution("e", "COMPLETED", {"dag": {"nodes": nodes}}, {}, {})
    assert list(check_calls({"e": one}, calls(*spans), {"soak": 1})) == said


async def test_who_waits_for_its_time_waits_in_vain_without_a_date(engine, redis):
    await start(engine, THREE, per_s=0.001)
    assert findings(redis) == []
    redis.delete(keys.LIMITS_DUE)
    assert findings(redis) == ["api: a place is free, and 2 wait"]


def limited(limit, count, **attempts):
    """An execution of so many nodes of a limit, and of one in another queue."""
    nodes = [{"id": f"N{at}", "handler": "x", "limit": limit} for at in range(count)]
    nodes.append({"id": "big", "handler": "x", "queue": "big"})
    return {"e": Execution("e", "COMPLETED", {"dag": {"nodes": nodes}}, {}, attempts)}


# One call after the other begins, and none ends.
FOUR = [Note(START, "e", f"N{at}", 1, at, 100.0 + at) for at in range(4)]
FOUR += [Note(END, "e", f"N{at}", 1, at, 110.0) for at in range(4)]


@pytest.mark.parametrize(
    ("said", "frozen", "found"),
    [
        # Two at most, until that is lifted before the fourth begins.
        ([(2, 0, 1, False), (inf, 103, 104, False)], (), [3]),
        # The third was let in before its worker was frozen.
        ([(2, 0, 1, False), (inf, 103, 104, False)], (2,), []),
        # Lowered after that, as was answered, and raised, which was not: it may be done late.
        ([(4, 0, 1, False), (2, 4, 5, False)], (), [3, 4]),
        ([(2, 0, 1, False), (4, 2, 3, True), (2, 4, 5, False)], (), []),
        # Whoever was let in before a limit was lowered may begin a little later.
        ([(4, 0, 1, False), (2, 101, 102, False)], (), []),
    ],
)
def test_calls_beyond_a_limit_that_changes_are_found(said, frozen, found):
    texts = list(check_changes(limited(TIDE, 4), FOUR, changes_of(said), frozen))
    assert texts == [f"{TIDE}: {one} calls at once where 2 may be" for one in found]


def test_a_rate_that_is_exceeded_for_a_while_is_found():
    executions = limited(PACED, 1)

    def found(*times_s, frozen=()):
        ledger = [Note(START, "e", "N0", at, 7, at_s) for at, at_s in enumerate(times_s)]
        return list(check_rates(executions, ledger, frozen))

    right = [at / 10 for at in range(500)]
    assert found(*right) == []
    too_many = [100 + at / 100 for at in range(60)]
    assert found(*right, *too_many) == [f"{PACED}: 53 calls more than the rate lets begin"]
    assert found(*right, *too_many, frozen=[7]) == []


def test_a_node_that_others_have_run_than_read_its_queue_is_found():
    record = "1 1000 1 1 {}-1-0123456789"
    right = limited("api", 1, N0=record.format("worker"), big=record.format("big"))
    assert list(check_readers(right)) == []
    wrong = limited("api", 1, N0=record.format("big"), big=record.format("worker"))
    assert list(check_readers(wrong)) == [
        "e N0: it is of the queue default, and big ran it",
        "e big: it is of the queue big, and worker ran it",
    ]
