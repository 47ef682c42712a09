"""The two clients against an API of this process: the same calls, the same answers."""

from __future__ import annotations

import asyncio
import contextlib
import inspect
from collections.abc import AsyncIterator

import pytest

from flowd.client import (
    ApiError,
    AsyncClient,
    Client,
    ConnectionFailed,
    StillRunning,
    WorkflowFailed,
    errors,
    steps,
)
from flowd.client.calls import Call, is_nearby, node_errors
from flowd.client.event_reader import EMPTY_STREAMS_MAX, EventReader, of_events
from flowd.client.steps import Pause
from flowd.handlers.registry import built_in_registry
from tests.daemon import PATIENCE_S
from tests.flow.api_server import api_server
from tests.flow.engine import Engine, node, workflow


def document(*nodes, **fields):
    return {"name": "test", "dag": {"nodes": list(nodes)}, **fields}


def served(settings):
    return api_server(settings), Engine(settings, registry=built_in_registry())


async def test_a_workflow_is_run_and_looked_at(settings):
    api, engine = served(settings)
    async with engine, api as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        results = await client.run(document(node("A", handler="noop"), node("B", ["A"], "noop")))
        assert results == {"A": {"status": "ok"}, "B": {"status": "ok"}}
        (row,) = [row async for row in client.list()]
        execution_id = row["execution_id"]
        assert (await client.get(execution_id))["counts"] == {"COMPLETED": 2}
        nodes = [one["node_id"] async for one in client.nodes(execution_id)]
        assert nodes == ["A", "B"]
        events = [event.type async for event in client.events(execution_id)]
        assert (events[0], events[-1]) == ("execution.submitted", "execution.completed")
        assert (await client.timeline(execution_id))["nodes"][1]["node_id"] == "B"
        with pytest.raises(ApiError) as without:
            await client.callback(execution_id)
        assert without.value.status == 404
        await client.delete(execution_id)
        with pytest.raises(ApiError) as refused:
            await client.status(execution_id)
        assert (refused.value.status, refused.value.code) == (404, "unknown_execution")


async def test_a_cancel_by_force_breaks_finally_off(settings):
    waits = document(node("A", handler="signal"))
    waits["dag"]["finally"] = [node("tidy", handler="signal")]
    api, engine = served(settings)
    async with engine, api as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        execution_id = await client.submit(waits, trigger=True)
        await client.cancel(execution_id)
        assert await client.status(execution_id) == "RUNNING"

        await client.cancel(execution_id, force=True)

        assert await client.status(execution_id) == "CANCELLED"


async def test_a_failure_names_its_nodes(settings):
    failing = node("A", handler="unreliable_handler", fail_first_attempts=9)
    api, engine = served(settings)
    async with engine, api as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        with pytest.raises(WorkflowFailed) as failed:
            await client.run(document(failing, node("B", ["A"], "noop")))
        assert list(failed.value.errors) == ["A", "B"]
        again = await client.rerun(failed.value.execution_id, preview=True)
        assert again["execution_id"] is None
        once = [await client.rerun(failed.value.execution_id, idempotency_key="once") for _ in "ab"]
        assert once[0] == once[1] != again


async def test_a_refused_workflow_says_all_that_is_wrong(settings):
    async with (
        api_server(settings) as server,
        AsyncClient(f"http://127.0.0.1:{server.port}") as client,
    ):
        with pytest.raises(ApiError) as refused:
            await client.submit(document(node("A", ["Z"], "nope")))
        assert {one["code"] for one in refused.value.errors} == {
            "unknown_handler",
            "unknown_dependency",
        }


async def test_nobody_there_is_a_connection_that_failed():
    async with AsyncClient("http://127.0.0.1:1") as client:
        with pytest.raises(ConnectionFailed):
            await client.status("0" * 24)
        with pytest.raises(ConnectionFailed):
            [event async for event in client.events()]


async def test_what_else_answers_is_no_flowd(settings):
    """The address of the dashboard, for instance, which answers any path with its page."""
    async with api_server(settings) as server:
        url = f"http://127.0.0.1:{server.port}/ui"

        def use():
            with Client(url) as client:
                for call in (lambda: client.status("0" * 24), lambda: list(client.events())):
                    with pytest.raises(ConnectionFailed, match="but not as the API of flowd does"):
                        call()

        await asyncio.to_thread(use)
        async with AsyncClient(url) as client:
            with pytest.raises(ConnectionFailed, match="but not as the API of flowd does"):
                await client.status("0" * 24)
            with pytest.raises(ConnectionFailed, match="but not as the API of flowd does"):
                [event async for event in client.events()]


async def test_both_clients_follow_the_attempt_they_are_asked_for(settings):
    async with api_server(settings) as server, Engine(settings) as engine, engine.ticking():
        retry = {"retry": {"max_attempts": 2, "delay_s": 0}}
        failing = node("A", handler="fail_first", times=1) | retry
        execution_id = await engine.run(workflow(failing))
        url = f"http://127.0.0.1:{server.port}"

        def follow(attempt):
            with Client(url) as client:
                return [one.type for one in client.follow_logs(execution_id, "A", attempt=attempt)]

        async with AsyncClient(url) as client:
            for attempt, wanted in ((1, ["lines", "end"]), (2, ["end"])):
                asked = client.follow_logs(execution_id, "A", attempt=attempt)
                assert [event.type async for event in asked] == wanted
                assert await asyncio.to_thread(follow, attempt) == wanted


async def test_the_blocking_client_says_the_same(settings):
    async with Engine(settings, registry=built_in_registry()), api_server(settings) as server:

        def use():
            with Client(f"http://127.0.0.1:{server.port}") as client:
                results = client.run(document(node("A", handler="noop")), timeout_s=PATIENCE_S)
                execution_id = next(client.list())["execution_id"]
                return results, [event.type for event in client.events(execution_id)]

        results, events = await asyncio.to_thread(use)
        assert results == {"A": {"status": "ok"}}
        assert events[-1] == "execution.completed"


async def test_an_input_is_given_at_the_start(settings):
    greeting = node("A", handler="transform", input={"who": "{{ input.who }}"}, expression="who")
    api, engine = served(settings)
    async with engine, api as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        results = await client.run(document(greeting), input={"who": "Ada"})
        assert results == {"A": {"result": "Ada"}}
        submitted = [
            await client.submit(
                document(greeting), trigger=True, input={"who": "Bob"}, idempotency_key="one"
            )
            for _ in range(2)
        ]
        assert submitted[0] == submitted[1]
        assert await client.wait(submitted[0]) == "COMPLETED"
        assert await client.results(submitted[0]) == {"A": {"result": "Bob"}}
        with pytest.raises(ValueError, match="trigger=True"):
            await client.submit(document(greeting), input={"who": "Ada"})


async def test_who_waits_too_long_hears_what_runs_on(settings):
    async with (
        api_server(settings) as server,
        AsyncClient(f"http://127.0.0.1:{server.port}") as client,
    ):
        with pytest.raises(TimeoutError) as patience:
            await client.run(document(node("A", handler="noop")), timeout_s=0.05)
        assert isinstance(patience.value, StillRunning)
        assert await client.status(patience.value.execution_id) == "RUNNING"
        assert patience.value.status == "RUNNING"


CUTS = 20
# A few events long, and never at the end of one for long.
CUT_AFTER_BYTES = 1_000


@contextlib.asynccontextmanager
async def cutting_proxy(port: int) -> AsyncIterator[tuple[int, list[int]]]:
    """A proxy in front of this port that cuts the first connections short; how many it has cut."""
    cut: list[int] = []

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        from_server, to_server = await asyncio.open_connection("127.0.0.1", port)
        to_server.write(await reader.readuntil(b"\r\n\r\n"))
        passed = 0
        while chunk := await from_server.read(97):
            writer.write(chunk)
            passed += len(chunk)
            if passed >= CUT_AFTER_BYTES and len(cut) < CUTS:
                cut.append(passed)
                await writer.drain()
                break
        to_server.close()
        writer.close()

    server = await asyncio.start_server(relay, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1], cut


async def test_a_stream_that_is_cut_twenty_times_shows_every_event_once(settings):
    chain = [node("N0", handler="noop")]
    chain += [node(f"N{at}", [f"N{at - 1}"], "noop") for at in range(1, 100)]
    api, engine = served(settings)
    async with engine, api as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        execution_id = await client.submit(document(*chain), trigger=True)
        assert await client.wait(execution_id) == "COMPLETED"
        expected = [event async for event in client.events(execution_id)]
        assert len({event.id for event in expected}) == len(expected) > 100

        async with cutting_proxy(server.port) as (port, cut):
            async with AsyncClient(f"http://127.0.0.1:{port}") as cut_off:
                assert [event async for event in cut_off.events(execution_id)] == expected
            assert len(cut) == CUTS

        def listen(port: int) -> list[object]:
            with Client(f"http://127.0.0.1:{port}") as blocking:
                return list(blocking.events(execution_id))

        async with cutting_proxy(server.port) as (port, cut):
            assert await asyncio.to_thread(listen, port) == expected
            assert len(cut) == CUTS


def test_a_listener_comes_back_to_a_flowd_that_is_away_for_a_moment():
    listener = of_events("http://flowd", None, None)
    with pytest.raises(ApiError):
        listener.refuse(503, b"")
    with pytest.raises(ConnectionFailed):
        listener.break_off(OSError("refused"))
    assert listener.is_stream(200, "text/event-stream; charset=utf-8")
    listener.break_off(OSError("reset"))
    listener.refuse(503, b"")
    with pytest.raises(ApiError):
        listener.refuse(404, b"{}")
    pauses = [listener.pause_s() for _ in range(10)]
    assert pauses == sorted(pauses)
    assert pauses[-1] == 5.0
    (event,) = listener.read(b"id: 1-0\nevent: node.started\ndata: {}\n\n")
    assert listener.next_call().headers["last-event-id"] == event.id == "1-0"
    assert listener.pause_s() < 1


def test_who_waits_bears_a_flowd_that_is_away_for_a_while(monkeypatch):
    """A restart of flowd, or a 503 of its Redis, ended every `run` and `wait` there was."""
    now_s = 0.0
    monkeypatch.setattr(errors.time, "monotonic", lambda: now_s)
    away, full = ConnectionFailed("refused"), ApiError(503, "store_unavailable", "away")
    waiting = steps.wait("0" * 24, None)
    assert isinstance(next(waiting), Call)
    with pytest.raises(ConnectionFailed):
        waiting.throw(away)

    waiting = steps.wait("0" * 24, None)
    next(waiting)
    answer = {"status": "RUNNING"}
    assert isinstance(waiting.send(answer), Pause)
    for error in (away, full):
        assert isinstance(next(waiting), Call)
        assert isinstance(waiting.throw(error), Pause)
    next(waiting)
    with pytest.raises(StopIteration) as ended:
        waiting.send({"status": "COMPLETED"})
    assert ended.value.value == "COMPLETED"

    for error, passed_s in ((ApiError(404, "unknown_execution", "?"), 0), (away, 61)):
        waiting = steps.wait("0" * 24, None)
        next(waiting)
        waiting.send(answer)
        next(waiting)
        now_s += passed_s
        with pytest.raises(type(error)):
            waiting.throw(error)


async def test_both_clients_bear_it(monkeypatch):
    left = []

    def answer(_call):
        one = left.pop(0)
        if isinstance(one, Exception):
            raise one
        return {"status": one}

    async def answer_later(call):
        return answer(call)

    script = ["RUNNING", ConnectionFailed("refused"), ApiError(503, "stopping", ""), "COMPLETED"]
    with Client("http://127.0.0.1:9") as client:
        monkeypatch.setattr(client, "_send", answer)
        left[:] = script
        assert await asyncio.to_thread(client.wait, "0" * 24) == "COMPLETED"
    async with AsyncClient("http://127.0.0.1:9") as client:
        monkeypatch.setattr(client, "_send", answer_later)
        left[:] = script
        assert await client.wait("0" * 24) == "COMPLETED"
    assert left == []


def test_a_listener_leaves_an_execution_of_which_nothing_is_kept():
    listener = of_events("http://flowd", "0" * 24, None)
    for _ in range(EMPTY_STREAMS_MAX):
        assert not listener.is_over
        listener.next_call()
        assert listener.is_stream(200, "text/event-stream")
        listener.end()
    assert listener.is_over


def test_a_proxy_of_the_environment_is_for_what_is_elsewhere():
    assert all(map(is_nearby, ("http://127.0.0.1:8000", "http://localhost", "http://[::1]:80")))
    assert not is_nearby("https://flowd.example.com")


def test_both_clients_have_the_same_methods():
    def methods(client):
        return {
            name: list(inspect.signature(function).parameters)
            for name, function in vars(client).items()
            if inspect.isfunction(function) and not name.startswith("_")
        }

    assert methods(Client) == methods(AsyncClient)


def test_a_stream_of_events_is_read_line_by_line():
    reader = EventReader()
    lines = [
        "id: 1-0",
        "event: node.started",
        'data: {"a": 1}',
        "",
        ": still here",
        "",
        "id: 1-0.1",
    ]
    found = [event for line in lines if (event := reader.feed(line))]
    assert [(one.id, one.type, one.data) for one in found] == [("1-0", "node.started", {"a": 1})]
    # What was not ended is not taken for seen.
    assert reader.last_event_id == "1-0"


def test_bytes_of_a_stream_may_come_in_any_portions():
    sent = 'retry: 1000\r\n\r\nid: 1-0\r\ndata: {"a":\r\ndata: "\u2028é"}\r\n\r\n'.encode()
    for size in (1, 2, 3, len(sent)):
        reader = EventReader()
        found = []
        for at in range(0, len(sent), size):
            found += reader.read(sent[at : at + size])
        assert [(one.id, one.data) for one in found] == [("1-0", {"a": "\u2028é"})]


def test_errors_of_nodes_that_did_not_run_come_last():
    results = {
        "B": {"error": "not run: it depends on 'A', which failed"},
        "A": {"error": "boom"},
        "C": {"x": 1},
    }
    assert list(node_errors(results)) == ["A", "B"]
