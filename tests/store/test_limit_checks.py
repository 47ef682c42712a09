"""The soak's checker on limits: silent where all is well, and each damage is named."""

from __future__ import annotations

import pytest

from flowd.store.redis import keys
from scripts.soaking.checker import Execution, read_executions
from scripts.soaking.ledger import END, START, Note
from scripts.soaking.limit_checks import check_calls, check_limits
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
