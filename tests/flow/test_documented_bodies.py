"""The five documented endpoints, byte for byte."""

from __future__ import annotations

import httpx2

from flowd.handlers.registry import built_in_registry
from tests.flow.api_server import api_server
from tests.flow.engine import Engine

WORKFLOW = {"name": "x", "dag": {"nodes": [{"id": "A", "handler": "noop"}]}}


async def test_the_documented_bodies_do_not_grow_or_change(settings):
    async with (
        Engine(settings, registry=built_in_registry()) as engine,
        api_server(settings) as api,
        httpx2.AsyncClient(base_url=f"http://127.0.0.1:{api.port}") as client,
    ):
        health = await client.get("/health")
        submitted = await client.post("/workflow", json=WORKFLOW)
        execution_id = submitted.json()["execution_id"]
        pending = await client.get(f"/workflows/{execution_id}")
        nothing = await client.get(f"/workflows/{execution_id}/results")
        triggered = await client.post(f"/workflow/trigger/{execution_id}")
        again = await client.post(f"/workflow/trigger/{execution_id}")
        await engine.end(execution_id)
        status = await client.get(f"/workflows/{execution_id}")
        results = await client.get(f"/workflows/{execution_id}/results")
    quoted = f'"{execution_id}"'
    started = f'{{"message":"Workflow triggered","execution_id":{quoted}}}'
    assert [one.text for one in (health, submitted, pending, nothing, triggered, again)] == [
        '{"status":"ok"}',
        f'{{"execution_id":{quoted},"message":"Workflow accepted"}}',
        f'{{"execution_id":{quoted},"status":"PENDING"}}',
        f'{{"execution_id":{quoted},"results":{{}}}}',
        started,
        started,
    ]
    assert status.text == f'{{"execution_id":{quoted},"status":"COMPLETED"}}'
    expected = f'{{"execution_id":{quoted},"results":{{"A":{{"status":"ok"}}}}}}'
    assert results.text == expected
    assert {one.status_code for one in (health, submitted, triggered, status, results)} == {200}
