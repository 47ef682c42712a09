"""The two clients against an API of this process: the same calls, the same answers."""

from __future__ import annotations

import asyncio
import inspect

import pytest

from flowd.client import ApiError, AsyncClient, Client, ConnectionFailed, WorkflowFailed
from flowd.client.calls import EventReader, node_errors
from flowd.workers.registry import built_in_registry
from tests.flow.api_server import api_server
from tests.flow.engine import Engine, node


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
        await client.delete(execution_id)
        with pytest.raises(ApiError) as refused:
            await client.status(execution_id)
        assert (refused.value.status, refused.value.code) == (404, "unknown_execution")


async def test_a_failure_names_its_nodes(settings):
    failing = node("A", handler="unreliable_handler", fail_first_attempts=9)
    api, engine = served(settings)
    async with engine, api as server, AsyncClient(f"http://127.0.0.1:{server.port}") as client:
        with pytest.raises(WorkflowFailed) as failed:
            await client.run(document(failing, node("B", ["A"], "noop")))
        assert list(failed.value.errors) == ["A", "B"]
        again = await client.rerun(failed.value.execution_id, preview=True)
        assert again["execution_id"] is None


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


async def test_the_blocking_client_says_the_same(settings):
    async with Engine(settings, registry=built_in_registry()), api_server(settings) as server:

        def use():
            with Client(f"http://127.0.0.1:{server.port}") as client:
                results = client.run(document(node("A", handler="noop")), timeout_s=20)
                execution_id = next(client.list())["execution_id"]
                return results, [event.type for event in client.events(execution_id)]

        results, events = await asyncio.to_thread(use)
        assert results == {"A": {"status": "ok"}}
        assert events[-1] == "execution.completed"


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


def test_errors_of_nodes_that_did_not_run_come_last():
    results = {
        "B": {"error": "not run: it depends on 'A', which failed"},
        "A": {"error": "boom"},
        "C": {"x": 1},
    }
    assert list(node_errors(results)) == ["A", "B"]
