"""The call that is the engine's heartbeat: commits and the next read in one transaction."""

from __future__ import annotations

import asyncio

from flowd.store.endings import COMMIT_MAX
from flowd.store.entries import Entry, Garbage
from flowd.store.tasks import BLOCK_MS, Exchange
from tests.store.engine import CHAIN, DIAMOND, GROUP, STREAM, State, outputs_of, until_blocked


async def test_what_a_commit_opens_is_read_in_the_same_call(engine, redis):
    """A read of its own would let another worker's blocked read win every hop of a chain."""
    worker, other = engine.worker("w1"), engine.worker("w2")
    # The first call ever loads its script, and runs it after the read.
    _, entries = await engine.start_and_take({"a": []}, worker)
    await worker.complete(*entries)
    execution, (a,) = await engine.start_and_take(CHAIN, worker)
    bell = asyncio.create_task(other.session.wait_for_entry())
    await until_blocked(redis)

    exchange = await worker.exchange([worker.completion(a)], read_max=8)

    assert exchange.completed == ["completed"]
    assert [entry.node_id for entry in exchange.entries] == ["b"]
    assert execution.state().held == {"w1": ["b#1"]}
    bell.cancel()


async def test_one_call_commits_fails_claims_and_reads(engine):
    worker = engine.worker()
    one, (a, x) = await engine.start_and_take({"a": [], "b": ["a"], "x": [], "y": ["x"]}, worker)
    other, (c,) = await engine.start_and_take(CHAIN, worker)

    exchange = await worker.exchange(
        [worker.completion(a)], [worker.failure(x)], [worker.start(c)], read_max=5
    )

    (b,) = exchange.entries
    assert exchange == Exchange(["completed"], ["failed"], ["claimed"], [b], False, 0)
    assert one.state() == State(
        status="RUNNING",
        nodes={"a": "COMPLETED", "b": "QUEUED", "x": "FAILED", "y": "FAILED"},
        counters={"remaining": "1", "failed": "1"},
        outputs={
            **outputs_of("a"),
            "x": {"error": "boom"},
            "y": {"error": "not run: it depends on 'x', which failed"},
        },
        attempts={"a": "#1 ended on w1", "x": "#1 ended on w1"},
        held={"w1": ["b#1"]},
    )
    assert other.state().nodes == {"a": "RUNNING", "b": "PENDING", "c": "PENDING"}


async def test_outcomes_come_in_the_order_of_what_was_sent(engine):
    worker = engine.worker()
    entries = [(await engine.start_and_take({"a": [], "b": []}, worker))[1] for _ in range(3)]
    failures = [worker.failure(first) for first, _ in entries]
    await worker.complete(entries[1][0])

    exchange = await worker.exchange([worker.completion(second) for _, second in entries], failures)

    assert exchange.completed == ["completed", "finished", "completed"]
    assert exchange.failed == ["finished", "stale", "finished"]


async def test_an_exchange_about_nothing_brings_nothing(engine):
    assert await engine.worker().exchange() == Exchange()


async def test_no_more_is_read_than_was_asked_for(engine):
    worker = engine.worker()
    await engine.start({f"r{number}": [] for number in range(10)})

    assert [len(await worker.take(count)) for count in (1, 4, 64, 64)] == [1, 4, 5, 0]


async def test_an_entry_is_delivered_to_one_worker(engine):
    workers = [engine.worker(f"w{number}") for number in range(4)]
    execution = await engine.start({f"r{number}": [] for number in range(40)})

    taken = await asyncio.gather(*(worker.take(10) for worker in workers))

    assert [len(entries) for entries in taken] == [10, 10, 10, 10]
    assert len({entry.node_id for entries in taken for entry in entries}) == 40
    assert execution.state().queued == []


async def test_what_was_delivered_in_a_lost_reply_is_read_back(engine):
    worker = engine.worker()
    await engine.start({f"r{number}": [] for number in range(250)})
    lost = await worker.take(230)

    assert await worker.session.own_entries() == lost
    assert await engine.worker("w2").session.own_entries() == []


async def test_what_was_read_back_and_deleted_meanwhile_is_left_out(engine, redis):
    worker = engine.worker()
    await engine.start({"a": [], "b": [], "c": []})
    entries = await worker.take()
    redis.xdel(STREAM, entries[1].name)

    assert await worker.session.own_entries() == [entries[0], entries[2]]


async def test_a_page_of_deleted_entries_does_not_hide_those_behind_it(engine, redis):
    """The reading once ended at the first page that held nothing but deleted entries."""
    worker = engine.worker()
    await engine.start({f"r{number}": [] for number in range(250)})
    entries = await worker.take()
    redis.xdel(STREAM, *(entry.name for entry in entries[:130]))

    assert await worker.session.own_entries() == entries[130:]


async def test_scripts_the_server_has_forgotten_are_loaded_and_the_read_is_kept(engine, redis):
    worker = engine.worker()
    execution, (a, b, c, d) = await engine.start_and_take(
        {"a": [], "b": [], "c": [], "d": [], "e": ["a"]}, worker
    )
    waiting = await engine.start(CHAIN)
    redis.script_flush()

    exchange = await worker.exchange(
        [worker.completion(a), worker.completion(b)],
        [worker.failure(c)],
        [worker.start(d)],
        read_max=1,
    )

    assert exchange.completed == ["completed", "completed"]
    assert (exchange.failed, exchange.claimed) == (["failed"], ["claimed"])
    (read,) = exchange.entries
    assert isinstance(read, Entry)
    assert (read.execution_id, read.node_id) == (waiting.id, "a")
    assert waiting.state().held == {"w1": ["a#1"]}
    assert execution.state().nodes == {
        "a": "COMPLETED",
        "b": "COMPLETED",
        "c": "FAILED",
        "d": "RUNNING",
        "e": "QUEUED",
    }


async def test_every_other_call_survives_forgotten_scripts_too(engine, redis):
    worker = engine.worker()
    redis.script_flush()
    execution = await engine.start(DIAMOND)
    redis.script_flush()
    (a,) = await worker.take()
    redis.script_flush()
    assert await worker.complete(a) == ["completed"]
    redis.script_flush()
    assert await engine.store.executions.fail_execution(execution.id, "enough")
    redis.script_flush()
    assert await engine.store.tasks.requeue_entry("1-1", "w1") == ("gone", None)


async def test_the_doorbell_brings_one_entry_the_moment_it_is_queued(engine, redis):
    worker = engine.worker()
    await engine.store.tasks.queues.ensure_groups()
    bell = asyncio.create_task(worker.session.wait_for_entry())
    await until_blocked(redis)
    execution = await engine.start({"a": [], "b": []})

    (entry,) = await bell

    assert isinstance(entry, Entry)
    assert (entry.execution_id, entry.node_id) == (execution.id, "a")
    assert execution.state().held == {"w1": ["a#1"]}


async def test_the_doorbell_gives_up_after_a_while(engine, monkeypatch):
    monkeypatch.setattr("flowd.store.tasks.BLOCK_MS", 20)
    await engine.store.tasks.queues.ensure_groups()

    assert await engine.worker().session.wait_for_entry() == []
    assert BLOCK_MS >= 1_000


async def test_a_cancelled_doorbell_does_not_mix_up_later_replies(engine, redis):
    worker = engine.worker()
    await engine.store.tasks.queues.ensure_groups()
    bell = asyncio.create_task(worker.session.wait_for_entry())
    await until_blocked(redis)
    bell.cancel()
    await asyncio.gather(bell, return_exceptions=True)
    await until_blocked(redis, 0)
    execution = await engine.start({"a": []})

    (entry,) = await worker.session.wait_for_entry()

    assert entry.node_id == "a"
    assert execution.state().held == {"w1": ["a#1"]}


async def test_a_garbage_entry_is_told_apart_from_the_good_ones_beside_it(engine, redis):
    worker = engine.worker()
    await engine.start({"a": []})
    redis.xadd(STREAM, {b"\xff": b"\xfe"})
    await engine.start({"b": []})

    first, garbage, last = (await worker.exchange(read_max=9)).entries

    assert (first.node_id, last.node_id) == ("a", "b")
    assert isinstance(garbage, Garbage)
    assert "execution_id" in garbage.reason


async def test_a_group_that_is_gone_is_told_beside_all_the_outcomes(engine, redis):
    """A claim in such a call was once an error, and what else the call had done was lost."""
    worker = engine.worker()
    execution, (a, b, c) = await engine.start_and_take({"a": [], "b": [], "c": []}, worker)
    redis.xgroup_destroy(STREAM, GROUP)

    exchange = await worker.exchange(
        [worker.completion(a)], [worker.failure(b)], [worker.start(c)], read_max=8
    )

    # The entries of a and b still stand in the stream: nobody has taken these attempts away.
    assert exchange == Exchange(["completed"], ["failed"], ["stale"], [], True, 0)
    assert execution.state().nodes == {"a": "COMPLETED", "b": "FAILED", "c": "QUEUED"}
    assert execution.state().counters == {"remaining": "1", "failed": "1"}


async def test_a_read_of_a_group_that_is_gone_is_told(engine, redis):
    worker = engine.worker()
    await engine.start_and_take(CHAIN, worker)
    redis.xgroup_destroy(STREAM, GROUP)

    assert await worker.exchange(read_max=8) == Exchange(is_group_missing=True)


async def test_so_many_wide_fans_at_once_do_not_hold_the_server_for_long(engine):
    """Sixty-four roots that ended together once opened 64,000 nodes in one script: 200 ms."""
    worker = engine.worker()
    graph = {"first": [], **{f"m{number}": ["first"] for number in range(900)}}
    fans = [await engine.start(graph) for _ in range(7)]
    entries = await worker.take(7)
    left = [worker.completion(entry) for entry in entries]

    calls = []
    while left:
        outcomes = (await worker.exchange(left)).completed
        calls.append(outcomes)
        left = left[len(outcomes) :]

    assert calls == [["completed"] * 5, ["completed"] * 2]
    assert all(one.states() == {"COMPLETED": 1, "QUEUED": 900} for one in fans)


async def test_so_many_wide_failures_at_once_do_not_hold_the_server_for_long(engine):
    worker = engine.worker()
    graph = {"first": [], **{f"m{number}": ["first"] for number in range(900)}}
    fans = [await engine.start(graph) for _ in range(7)]
    entries = await worker.take(7)
    left = [worker.failure(entry) for entry in entries]

    calls = []
    while left:
        outcomes = (await worker.exchange(failures=left)).failed
        calls.append(outcomes)
        left = left[len(outcomes) :]

    assert calls == [["finished"] * 5, ["finished"] * 2]
    assert all(one.state().status == "FAILED" for one in fans)


async def test_large_outputs_do_not_travel_all_at_once(engine, monkeypatch):
    """Redis ends a connection that sends it a gigabyte at once, and slow lines time out before."""
    monkeypatch.setattr("flowd.store.endings.BYTES_MAX", 1_000)
    worker = engine.worker()
    execution, entries = await engine.start_and_take({"a": [], "b": [], "c": []}, worker)
    outputs = [worker.completion(entry)._replace(output=b'"%600d"' % 1) for entry in entries]

    first = await worker.exchange(outputs)
    second = await worker.exchange(outputs[2:])

    assert (first.completed, second.completed) == (["completed", "completed"], ["finished"])
    assert execution.state().status == "COMPLETED"


async def test_no_more_nodes_than_one_call_bears_are_committed(engine):
    worker = engine.worker()
    execution, entries = await engine.start_and_take(
        {f"r{number}": [] for number in range(COMMIT_MAX + 1)}, worker
    )

    assert await worker.complete(*entries) == ["completed"] * COMMIT_MAX
    assert await worker.complete(entries[-1]) == ["finished"]
    assert execution.state().status == "COMPLETED"
