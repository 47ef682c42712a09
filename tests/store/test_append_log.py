"""What nodes say: added once, bounded, gone with its execution."""

from __future__ import annotations

from dataclasses import replace

import pytest

from flowd.config import LogsSettings
from flowd.store.logs import ATTEMPTS_KEPT, LogName
from tests.store.logs import Talk


@pytest.fixture
def talk(settings, store):
    return Talk(settings, store)


async def test_what_is_said_of_an_execution_that_is_gone_is_not_kept(engine, talk, redis):
    execution = await engine.start({"a": []})
    redis.delete(f"workflow:{execution.id}:status")

    assert await talk.say(execution.id, "a", "late") == "unknown"
    assert redis.keys(f"workflow:{execution.id}:log*") == []


async def test_the_same_lines_sent_again_are_kept_once(engine, talk, redis):
    execution = await engine.start({"a": []})
    await talk.say(execution.id, "a", "once")
    before = redis.hget(f"workflow:{execution.id}:run", "log_bytes")
    talk.numbers.clear()

    assert await talk.say(execution.id, "a", "once") == "stored"
    assert redis.xlen(f"workflow:{execution.id}:log:a:1") == 1
    assert redis.hget(f"workflow:{execution.id}:run", "log_bytes") == before


async def test_entries_that_give_way_leave_a_gap_that_is_told(engine, talk, store):
    execution = await engine.start({"a": []})
    for text in ("first", "second", "third"):
        await talk.say(execution.id, "a", text)
    await talk.say(execution.id, "a", "last", gone=(2, 3), dropped=2)

    found = await store.nodes.logs.read(execution.id, LogName("a", 1))
    assert [line.text for line in found.lines] == ["first", "last"]
    assert (found.gaps, found.dropped, found.is_last) == ([4], 2, True)


async def test_an_execution_whose_logs_are_full_counts_what_comes(engine, settings, store, redis):
    talk = Talk(replace(settings, logs=LogsSettings(execution_max_mb=1)), store)
    execution = await engine.start({"a": [], "b": []})
    redis.hset(f"workflow:{execution.id}:run", "log_bytes", 2**20 + 1)

    assert await talk.say(execution.id, "a", "one", "two") == "full"
    assert await talk.say(execution.id, "b", "three") == "full"
    assert await store.nodes.logs.dropped(execution.id) == 3
    assert redis.keys(f"workflow:{execution.id}:log*") == []


async def test_the_logs_of_old_attempts_give_way_to_new_ones(engine, talk, redis):
    execution = await engine.start({"a": []})
    for attempt in (1, 2, 3, ATTEMPTS_KEPT + 2):
        await talk.say(execution.id, "a", "said", attempt=attempt)

    names = {"a 3", f"a {ATTEMPTS_KEPT + 2}"}
    assert set(redis.zrange(f"workflow:{execution.id}:logs", 0, -1)) == names
    left = [f"workflow:{execution.id}:log:a:{number}" for number in (3, ATTEMPTS_KEPT + 2)]
    assert sorted(redis.keys(f"workflow:{execution.id}:log:*")) == sorted(left)
    said = redis.xrange(left[0])[0][1]["lines"]
    assert redis.hget(f"workflow:{execution.id}:run", "log_bytes") == str(2 * len(said))


async def test_a_log_that_somebody_broke_harms_nobody(engine, talk, store, redis):
    execution = await engine.start({"a": []})
    redis.set(f"workflow:{execution.id}:log:a:1", "rubbish")
    redis.set(f"workflow:{execution.id}:logs", "rubbish")
    redis.set(f"workflow:{execution.id}:history", "rubbish")

    assert await talk.say(execution.id, "a", "said") == "stored"
    assert (await store.nodes.logs.read(execution.id, LogName("a", 1))).lines == []
    assert await store.nodes.logs.grown(execution.id, 0, 10) == ([], 0)
    worker = engine.worker()
    await engine.finish(worker)
    assert await store.finished.delete_execution(execution.id) == "deleted"
    left = redis.keys(f"workflow:{execution.id}*")
    assert left == [f"workflow:{execution.id}:log:a:1"]
