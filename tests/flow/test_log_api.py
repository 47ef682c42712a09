"""Logs over HTTP: as JSON, as text, and followed to the end."""

from __future__ import annotations

import orjson
import pytest

from tests.flow.api_server import api_server
from tests.store.engine import CHAIN, ScriptedEngine
from tests.store.logs import START, Talk


@pytest.fixture
def engine(store, redis, runner):
    engine = ScriptedEngine(store, redis)
    yield engine
    runner.run(engine.close())


@pytest.fixture
def talk(settings, store):
    return Talk(settings, store)


async def as_json(api, target):
    client = await api.connect(target, accept="application/json")
    await client.read_head()
    body = orjson.loads(await client.read_body())
    client.cut()
    return body


async def test_a_log_is_json_or_text_with_the_place_where_lines_are_missing(engine, settings, talk):
    execution = await engine.start(CHAIN)
    await talk.say(execution.id, "a", "first", "sec\x1bond")
    await talk.say(execution.id, "a", "last", skip=1, dropped=7)
    async with api_server(settings) as api:
        target = f"/workflows/{execution.id}/nodes/a/logs"
        line = {"at_ms": START, "stream": "stdout"}
        assert await as_json(api, target) == {
            "execution_id": execution.id,
            "node_id": "a",
            "attempt": None,
            "lines": [],
            "dropped": 0,
            "dropped_at": None,
        }
        found = await as_json(api, f"{target}?attempt=1")
        assert found["lines"] == [
            {**line, "text": "first"},
            {**line, "text": "sec\x1bond"},
            {**line, "text": "last"},
        ]
        assert (found["dropped"], found["dropped_at"]) == (7, 2)
        status, kind, body = await api.get(f"{target}?attempt=1&lines=2")
        assert (status, kind) == (200, "text/plain; charset=utf-8")
        assert body.decode().splitlines() == [
            "2025-11-24T16:00:00.000Z stdout sec\\x1bond",
            "… 7 lines are not kept",
            "2025-11-24T16:00:00.000Z stdout last",
        ]
        assert (await api.get(f"/workflows/{execution.id}/nodes/x/logs"))[0] == 404


async def test_a_follower_sees_each_line_once_and_the_end_with_its_node(engine, settings, talk):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await worker.claim(entry)
    await talk.say(execution.id, "a", "one")
    async with api_server(settings) as api:
        target = f"/workflows/{execution.id}/nodes/a/logs?follow=true"
        client = await api.connect(target)
        (first,) = await client.take(1)
        assert [one["text"] for one in first["data"]["lines"]] == ["one"]
        client.cut()
        await talk.say(execution.id, "a", "two")
        client = await api.connect(target, first["id"])
        (second,) = await client.take(1)
        assert [one["text"] for one in second["data"]["lines"]] == ["two"]
        await talk.say(execution.id, "a", "three")
        await worker.complete(entry)
        rest = [event async for event in client.events()]
        assert [event["event"] for event in rest] == ["lines", "end"]
        assert rest[0]["data"]["attempt"] == 1
        assert rest[-1]["data"] == {"state": "COMPLETED"}


async def test_all_nodes_of_an_execution_are_followed_to_its_end(engine, settings, talk):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take({"a": []}, worker)
    await talk.say(execution.id, "a", "from a")
    async with api_server(settings) as api:
        client = await api.connect(f"/workflows/{execution.id}/logs?follow=true")
        (first,) = await client.take(1)
        assert first["data"]["node_id"] == "a"
        await talk.say(execution.id, "b", "from b")
        (second,) = await client.take(1)
        assert (second["data"]["node_id"], second["data"]["lines"][0]["text"]) == ("b", "from b")
        await worker.complete(entry)
        rest = [event async for event in client.events()]
        assert [event["event"] for event in rest] == ["end"]


async def test_the_last_lines_of_an_execution_come_by_time(engine, settings, talk):
    execution = await engine.start({"a": [], "b": []})
    for at in range(6):
        await talk.say(execution.id, "ab"[at % 2], f"line {at}", at_ms=START + at)
    async with api_server(settings) as api:
        found = await as_json(api, f"/workflows/{execution.id}/logs?lines=3")
        assert [(one["node_id"], one["text"]) for one in found["lines"]] == [
            ("b", "line 3"),
            ("a", "line 4"),
            ("b", "line 5"),
        ]
        _, _, body = await api.get(f"/workflows/{execution.id}/logs?lines=1")
        assert body.decode() == "2025-11-24T16:00:00.005Z b#1 stdout line 5\n"


async def test_an_attempt_whose_worker_died_is_among_the_attempts(engine, settings, talk):
    worker = engine.worker()
    execution, (entry,) = await engine.start_and_take(CHAIN, worker)
    await worker.claim(entry)
    await talk.say(execution.id, "a", "before it died")
    await engine.store.tasks.requeue_entry(entry.name, "w1", is_death=True)
    (entry,) = await worker.take()
    await worker.complete(entry)
    async with api_server(settings) as api:
        found = await as_json(api, f"/workflows/{execution.id}/nodes/a/attempts")
        told = [(one["attempt"], one["error"], one["has_log"]) for one in found["attempts"]]
        assert told == [(1, "its worker died", True), (2, None, False)]
        assert found["attempts"][0]["worker"] == "w1"
        assert found["attempts"][0]["finished_ms"] is None
        node = await as_json(api, f"/workflows/{execution.id}/nodes/a")
        assert node["attempts"] == found["attempts"]
