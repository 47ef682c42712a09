"""Server-sent events over TCP: nothing is lost and nothing comes twice, whatever is cut."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import random
import time
import weakref

import orjson
import pytest
import redis as redis_py

from flowd.api import event_feed
from flowd.api.event_feed import EventFeed
from flowd.api.http import event_stream
from flowd.api.shared import shared_of
from flowd.api.waiting import Waiting
from flowd.store.executions import now_ms
from flowd.store.redis import keys
from flowd.workflow.ids import new_execution_id
from flowd.workflow.states import ExecutionState
from tests.daemon import PATIENCE_S
from tests.flow.api_server import api_server
from tests.flow.engine import Engine, node, until, workflow
from tests.private_server import PrivateServer

# Whoever waits for the grace period to end has waited in vain.
ENDLESS_S = 10 * PATIENCE_S


def new_execution(redis, status="RUNNING", ahead_ms=0):
    execution_id = new_execution_id(now_ms() + ahead_ms)
    redis.set(keys.status(execution_id), status)
    return execution_id


def happen(redis, *pairs):
    """One entry, as a script would write it; its id."""
    command = [part for pair in pairs for part in pair]
    return redis.execute_command("XADD", keys.EVENTS, "*", *command)


def completed(execution_id, node_id):
    return "node.completed", f"{execution_id} {node_id} 1 1764000000000 5 7 w1"


def named(events):
    return [event["data"].get("node_id", event["event"]) for event in events]


async def test_an_execution_is_replayed_from_its_submission_and_ends_the_stream(settings, redis):
    one, other = new_execution(redis), new_execution(redis)
    happen(redis, ("execution.submitted", one))
    happen(redis, ("execution.submitted", other), ("execution.triggered", one))
    async with api_server(settings) as api:
        client = await api.connect(f"/workflows/{one}/events")
        assert named(await client.take(2)) == ["execution.submitted", "execution.triggered"]
        assert client.headers["content-type"].startswith("text/event-stream")
        entry = happen(redis, completed(other, "x"), completed(one, "a"))
        (event,) = await client.take(1)
        assert event["id"] == f"{entry}.1"
        assert event["data"] == {
            "execution_id": one,
            "node_id": "a",
            "attempt": 1,
            "queued_ms": 1764000000000,
            "waited_ms": 5,
            "ran_ms": 7,
            "worker": "w1",
            "at_ms": int(entry.partition("-")[0]),
        }
        happen(redis, completed(one, "b"), ("execution.completed", one), completed(one, "late"))
        assert named([event async for event in client.events()]) == ["b", "execution.completed"]


async def test_one_that_was_submitted_by_a_clock_ahead_of_redis_is_replayed_whole(settings, redis):
    execution_id = new_execution(redis, "COMPLETED", ahead_ms=30_000)
    happen(redis, ("execution.submitted", execution_id))
    happen(redis, completed(execution_id, "a"), ("execution.completed", execution_id))
    async with api_server(settings) as api:
        client = await api.connect(f"/workflows/{execution_id}/events")
        seen = [event async for event in client.events()]
    assert named(seen) == ["execution.submitted", "a", "execution.completed"]


async def test_one_that_has_ended_is_replayed_and_a_browser_that_saw_it_stays_away(settings, redis):
    execution_id = new_execution(redis, "COMPLETED")
    happen(redis, ("execution.submitted", execution_id))
    end = happen(redis, completed(execution_id, "a"), ("execution.completed", execution_id))
    async with api_server(settings) as api:
        client = await api.connect(f"/workflows/{execution_id}/events")
        seen = [event async for event in client.events()]
        assert named(seen) == ["execution.submitted", "a", "execution.completed"]
        assert seen[-1]["id"] == f"{end}.1"
        assert (await api.get(f"/workflows/{execution_id}/events", f"{end}.1"))[0] == 204
        _, _, rest = await api.get(f"/workflows/{execution_id}/events?last_event_id={end}")
        assert rest.count(b"event: ") == 1
        assert b"event: execution.completed" in rest


@pytest.mark.parametrize("target", ["/workflows/{}/events", "/events"])
async def test_a_client_that_is_cut_twenty_times_sees_every_event_once(settings, redis, target):
    chance = random.Random(7)
    execution_id, noise = new_execution(redis), new_execution(redis)
    happen(redis, ("execution.submitted", execution_id))
    nodes = [f"n{number}" for number in range(600)]

    async def work():
        at = 0
        while at < len(nodes):
            size = chance.randint(1, 7)
            own = [completed(execution_id, one) for one in nodes[at : at + size]]
            happen(redis, completed(noise, "x"), *own, completed(noise, "y"))
            at += size
            await asyncio.sleep(0)
        happen(redis, ("execution.completed", execution_id))

    async with api_server(settings) as api:
        seen, cuts, last = [], 0, ""
        first = await api.connect(target.format(execution_id))
        (await first.take(1)) if "workflows" in target else await anext(first.blocks())
        first.cut()
        start = redis.xinfo_stream(keys.EVENTS)["last-generated-id"]
        working = asyncio.create_task(work())
        while "execution.completed" not in seen:
            client = await api.connect(target.format(execution_id), last or start)
            patience = chance.randint(1, 40) if cuts < 25 else 10_000
            async for event in client.events():
                last = event["id"]
                assert event["event"] != "gap"
                if event["data"]["execution_id"] == execution_id:
                    seen.append(named([event])[0])
                patience -= 1
                if patience == 0 or seen[-1:] == ["execution.completed"]:
                    break
            client.cut()
            cuts += 1
        await working
    assert cuts > 20
    assert seen == [*nodes, "execution.completed"]


async def test_many_clients_share_one_reader_which_ends_with_the_last(settings, redis):
    def readers():
        return [one for one in redis.client_list() if one["cmd"] == "xread"]

    async with api_server(settings) as api:
        clients = [await api.connect("/events") for _ in range(5)]
        for client in clients:
            await anext(client.blocks())
        await until(lambda: len(readers()) == 1, "the one reader")
        happen(redis, completed(new_execution(redis), "a"))
        for client in clients:
            assert named(await client.take(1)) == ["a"]
            client.cut()
        await until(lambda: not readers(), "the end of the reader")


async def test_a_bell_rings_for_whatever_has_happened_and_reads_none_of_it(settings, redis):
    async with api_server(settings) as api:
        before = happen(redis, completed("x", "a"))
        client = await api.connect("/events/bell")
        assert [one["id"] for one in await client.take(1)] == [before]

        for one in range(9):
            last = happen(redis, *(completed("x", f"n{one}") for one in range(64)))

        rung = []
        while not rung or rung[-1]["id"] != last:
            rung += await client.take(1)
        assert {(one["event"], str(one["data"])) for one in rung} == {("bell", "{}")}
        assert len(rung) < 9
        assert not [one for one in redis.client_list() if one["cmd"] == "xread"]


async def test_a_bell_is_silent_while_redis_is_away_and_rings_when_it_is_back(settings, redis):
    async with api_server(settings) as api:
        client = await api.connect("/events/bell")
        await client.take(1)
        redis.client_kill_filter(_type="normal", skipme=True)

        last = happen(redis, completed("x", "a"))

        assert [one["id"] for one in await client.take(1)] == [last]


async def test_a_client_that_does_not_read_is_cut_and_can_go_on(settings, redis, monkeypatch):
    monkeypatch.setattr(event_feed, "WAITING_MAX", 200)
    monkeypatch.setattr(event_stream, "LAST_WRITE_S_MAX", 0.1)
    execution_id = new_execution(redis)
    async with api_server(settings) as api:
        slow = await api.connect("/events", buffer=4096)
        quick = await api.connect("/events")
        await anext(slow.blocks())
        await anext(quick.blocks())
        sent, seen = 0, []
        while len(subscriptions(api)) == 2:
            happen(redis, *(completed(execution_id, f"n{sent + one}") for one in range(64)))
            sent += 64
            seen += named(await quick.take(64))
            assert sent < 200_000
        assert seen == [f"n{one}" for one in range(sent)]
        got = [event async for event in slow.events()]
        assert 0 < len(got) < sent
        back = await api.connect("/events", got[-1]["id"])
        got += await back.take(sent - len(got))
        assert named(got) == seen


def subscriptions(api):
    return shared_of(api.app).feed._subscriptions


async def test_an_id_that_is_kept_no_more_is_answered_with_a_gap_first(settings, redis):
    execution_id = new_execution(redis)
    happen(redis, ("execution.submitted", execution_id))
    old = happen(redis, completed(execution_id, "a"))
    happen(redis, completed(execution_id, "b"))
    kept = happen(redis, completed(execution_id, "c"))
    redis.xtrim(keys.EVENTS, maxlen=1, approximate=False)
    async with api_server(settings) as api:
        for target in ("/events", f"/workflows/{execution_id}/events"):
            client = await api.connect(target, old)
            gap, event = await client.take(2)
            assert (gap["event"], gap["data"]) == ("gap", {"after": old, "oldest": kept})
            assert named([event]) == ["c"]
        # Its beginning is gone too.
        client = await api.connect(f"/workflows/{execution_id}/events")
        assert [event["event"] for event in await client.take(2)] == ["gap", "node.completed"]
        # An id this Redis has never given.
        client = await api.connect("/events", "99999999999999-0")
        assert [event["event"] for event in await client.take(2)] == ["gap", "node.completed"]


async def test_only_the_wanted_types_come_and_the_end_still_ends_it(settings, redis):
    execution_id = new_execution(redis)
    happen(redis, ("execution.submitted", execution_id))
    async with api_server(settings) as api:
        client = await api.connect(f"/workflows/{execution_id}/events?types=node.failed")
        await anext(client.blocks())
        happen(redis, completed(execution_id, "a"), ("node.failed", f"{execution_id} b 1 - - - -"))
        happen(redis, ("execution.failed", execution_id))
        seen = [event async for event in client.events()]
        assert [event["data"] for event in seen] == [
            {
                "execution_id": execution_id,
                "node_id": "b",
                "attempt": 1,
                "at_ms": seen[0]["data"]["at_ms"],
            }
        ]


@pytest.mark.parametrize("what", ["events", "logs", "nodes/b/logs"])
async def test_an_unreadable_last_event_id_is_refused_wherever_there_is_one(settings, what):
    async with api_server(settings) as api, Engine(settings, workers=1) as engine:
        one = await engine.run(workflow(node("b")))
        for target, header in (
            (f"/workflows/{one}/{what}", "yesterday"),
            (f"/workflows/{one}/{what}?last_event_id=yesterday", ""),
        ):
            status, media_type, body = await api.get(target, header)
            assert (status, media_type) == (400, "application/problem+json")
            path = b"headers.Last-Event-ID" if header else b"query.last_event_id"
            assert b'"path":"%b"' % path in body
            assert b"'yesterday' is not the id of" in body


@pytest.mark.parametrize(
    ("target", "status", "code"),
    [
        ("/events?types=node.burnt", 400, b"invalid_request"),
        ("/events?last_event_id=yesterday", 400, b"invalid_request"),
        (f"/workflows/{'0' * 24}/events", 404, b"unknown_execution"),
    ],
)
async def test_what_cannot_be_watched_is_a_problem(settings, target, status, code):
    async with api_server(settings) as api:
        found, media_type, body = await api.get(target)
        assert (found, media_type) == (status, "application/problem+json")
        assert b'"code":"%b"' % code in body


async def test_silence_is_filled_with_heartbeats(settings, monkeypatch):
    monkeypatch.setattr(event_stream, "HEARTBEAT_S", 0.1)
    async with api_server(settings) as api:
        began = time.monotonic()
        client = await api.connect("/events")
        blocks = client.blocks()
        assert await anext(blocks) == {"retry": "1000"}
        assert [await anext(blocks) for _ in range(3)] == [{"": "heartbeat"}] * 3
        assert time.monotonic() - began >= 0.25


async def test_while_redis_is_away_clients_stay_and_then_miss_nothing(settings, redis):
    """The connections to Redis are cut under the reader, as a restart would."""
    execution_id = new_execution(redis)
    async with api_server(settings) as api:
        client = await api.connect("/events")
        await anext(client.blocks())
        for number in range(5):
            redis.client_kill_filter(skipme=True)
            happen(redis, completed(execution_id, f"n{number}"))
            assert named(await client.take(1)) == [f"n{number}"]


async def test_when_redis_comes_back_empty_clients_are_told_of_the_gap():
    own = PrivateServer()
    own.start()
    try:
        with redis_py.Redis(unix_socket_path=own.socket_path, decode_responses=True) as redis:
            async with api_server(own.settings()) as api:
                client = await api.connect("/events")
                await anext(client.blocks())
                before = happen(redis, completed("x", "a"))
                await client.take(1)
                own.process.kill()
                own.process.wait()
                own.start()
                after = happen(redis, completed("x", "b"))
                gap, event = await client.take(2)
        assert (gap["event"], gap["data"]) == ("gap", {"after": before, "oldest": after})
        assert (event["id"], named([event])) == (after, ["b"])
    finally:
        own.stop()


async def test_a_stop_ends_who_waits_for_a_bell(settings):
    async with api_server(settings, grace_s=ENDLESS_S) as api:
        client = await api.connect("/events/bell")
        await client.take(1)
    assert [event async for event in client.events()] == []


@pytest.mark.parametrize("is_reading", [True, False])
async def test_a_stop_is_not_held_up_by_those_who_listen(settings, redis, is_reading):
    execution_id = new_execution(redis)
    async with api_server(settings, grace_s=ENDLESS_S) as api:
        client = await api.connect("/events", buffer=4096)
        await anext(client.blocks())
        if not is_reading:
            (subscription,) = subscriptions(api)
            while len(subscription._waiting) < 1000:
                happen(redis, *(completed(execution_id, f"n{one}") for one in range(64)))
                await asyncio.sleep(0)
    if is_reading:
        assert [event async for event in client.events()] == []


async def test_a_head_request_has_no_body(settings):
    async with api_server(settings) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        writer.write(b"HEAD /events HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        async with asyncio.timeout(PATIENCE_S):
            assert (await reader.read()).startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_waiters_share_the_reader_and_hear_of_the_end(redis, store):
    feed = EventFeed(store.events)
    ids = [new_execution(redis) for _ in range(50)]
    waiting = [asyncio.create_task(Waiting(store, feed).wait_for_end(one, 10)) for one in ids]
    await until(lambda: len(feed._live) == len(ids), "all that wait")
    for one in ids:
        redis.set(keys.status(one), "FAILED")
        happen(redis, ("execution.failed", one))
    assert await asyncio.gather(*waiting) == [ExecutionState.FAILED] * len(ids)
    assert feed._tail is None
    # One that has ended is known at once, one that does not end is given up.
    assert await Waiting(store, feed).wait_for_end(ids[0], 10) is ExecutionState.FAILED
    assert await Waiting(store, feed).wait_for_end(new_execution(redis), 0.05) is None


async def test_what_happens_while_a_page_is_read_is_not_passed_over(redis, store, monkeypatch):
    feed = EventFeed(store.events)
    execution_id = new_execution(redis)
    happen(redis, ("execution.submitted", execution_id))
    read, meanwhile = store.events.read, []

    async def read_slowly(after, *count_max):
        page = await read(after, *count_max)
        if not meanwhile:
            before = feed.position
            meanwhile.append(happen(redis, completed(execution_id, "a")))
            await until(lambda: feed.position > before, "the feed behind what happened")
        return page

    monkeypatch.setattr(store.events, "read", read_slowly)
    with contextlib.closing(await feed.replay(execution_id, has_ended=False)) as subscription:
        seen = await subscription.read(PATIENCE_S)
        # It has caught up with the feed when it hears of what comes next.
        happen(redis, completed(execution_id, "b"))
        while seen[-1].node_id != "b":
            seen += await subscription.read(PATIENCE_S)
    assert [one.node_id for one in seen] == [None, "a", "b"]


@pytest.mark.parametrize("about", ["all", "one"])
async def test_who_has_gone_is_let_go_of_while_others_listen(redis, store, about):
    """Each would be offered every event there is, for as long as anybody listens."""
    feed = EventFeed(store.events)
    execution_id = new_execution(redis) if about == "one" else None
    stays, goes = await feed.follow(execution_id), await feed.follow(execution_id)
    reading = [asyncio.create_task(one.read(PATIENCE_S)) for one in (stays, goes)]
    await asyncio.sleep(0)
    happen(redis, ("execution.paused", execution_id or new_execution(redis)))
    await asyncio.gather(*reading)
    gone = weakref.ref(goes)

    goes.close()
    del goes, reading
    gc.collect()

    assert gone() is None
    stays.close()


async def test_the_engine_says_all_it_does(settings):
    """Two branches, one of which fails, as the world outside sees it."""
    async with Engine(settings) as engine, api_server(settings) as api:
        everything = await api.connect("/events")
        await anext(everything.blocks())
        execution_id = await engine.start(
            workflow(node("a"), node("b", ["a"]), node("c", ["a"], handler="fail"))
        )
        client = await api.connect(f"/workflows/{execution_id}/events")
        seen = [event async for event in client.events()]
        assert [event["event"] for event in seen[:2]] == [
            "execution.submitted",
            "execution.triggered",
        ]
        ended = {
            event["data"]["node_id"]: event["event"]
            for event in seen
            if event["event"] in ("node.completed", "node.failed")
        }
        assert ended == {"a": "node.completed", "b": "node.completed", "c": "node.failed"}
        assert seen[-1]["event"] == "execution.failed"
        assert await everything.take(len(seen)) == seen


async def test_submit_start_and_wait_in_one_call(settings):
    """Over HTTP, to the end; a stop of the API lets nobody wait for what goes on."""
    body = orjson.dumps({"name": "x", "dag": {"nodes": [{"id": "a", "handler": "echo"}]}})
    head = b"POST /workflow?trigger=true&wait=%d HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n"
    async with api_server(settings, grace_s=ENDLESS_S) as api:
        reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
        async with Engine(settings):
            writer.write(head % (120, len(body)) + body)
            answer = await reader.readuntil(b"}}")
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert b'"status":"COMPLETED","results":{"a":' in answer
        # One who leaves is waited for no more: an hour of each would add up.
        _, leaver = await asyncio.open_connection("127.0.0.1", api.port)
        leaver.write(head % (3600, len(body)) + body)
        await until(lambda: subscriptions(api), "one that waits")
        leaver.transport.abort()
        await until(lambda: not subscriptions(api), "nobody to be left")
        writer.write(head % (3600, len(body)) + body)
        await until(lambda: subscriptions(api), "one that waits")
    assert b'"status":"RUNNING"' in await reader.read()
