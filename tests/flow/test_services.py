"""The linear sample against real services: rendered requests reach them, their answers stay."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

import httpx2
import pytest

from flowd.handlers.registry import Registry
from tests.flow.api_server import api_server
from tests.flow.engine import Engine, node, workflow
from tests.flow.test_meaning import BUILT_IN, sample
from tests.local_services import completion, json_reply, running_service


def using(settings, llm_url):
    """Settings that simulate nothing and may call the services of the tests."""
    external = replace(
        settings.handlers.call_external_service, simulated_hosts=(), allow=("127.0.0.1",)
    )
    handlers = replace(
        settings.handlers,
        call_external_service=external,
        llm=replace(settings.handlers.llm, base_url=llm_url, model="tiny"),
    )
    return replace(settings, handlers=handlers)


async def test_the_linear_sample_calls_real_services_with_rendered_templates(settings):
    with (
        running_service(lambda _request: json_reply({"price": 7})) as http,
        running_service(lambda _request: completion("seven euro", model="tiny")) as llm,
    ):
        definition = sample("linear").model_dump(by_alias=True)
        first, _, last = definition["dag"]["nodes"]
        first["config"]["url"] = f"{http.url}/prices"
        last["config"]["url"] = f"{http.url}/consumer/{{{{ B.answer }}}}"
        async with Engine(using(settings, f"{llm.url}/v1"), registry=Registry(BUILT_IN)) as engine:
            execution_id = await engine.run(type(sample("linear")).model_validate(definition))
            results = await engine.results(execution_id)

    assert results["A"] == {"data": {"price": 7}, "status_code": 200}
    assert results["B"]["answer"] == "seven euro"
    assert results["C"] == {"data": {"price": 7}, "status_code": 200}
    (asked,) = llm.requests
    assert asked.json["messages"] == [{"role": "user", "content": 'Summarize {"price":7}'}]
    assert [unquote(one.target) for one in http.requests] == ["/prices", "/consumer/seven euro"]


TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(
    ("sent", "own", "passed_on"),
    [
        (TRACE, {}, TRACE),
        (TRACE, {"Traceparent": "mine"}, "mine"),
        ("", {}, None),
        ("00-nonsense", {}, None),
        (TRACE.replace("4bf92f3577b34da6a3ce929d0e0e4736", 32 * "0"), {}, None),
    ],
)
@pytest.mark.parametrize("way", ["trigger", "submit"])
async def test_the_trace_of_the_caller_goes_on_in_the_calls(settings, sent, own, passed_on, way):
    with running_service(lambda _request: completion("fine")) as service:
        own_settings = using(settings, service.url)
        nodes = [
            node("A", handler="call_external_service", url=service.url, headers=own),
            node("B", ["A"], handler="llm", prompt="x"),
        ]
        async with (
            Engine(own_settings, registry=Registry(BUILT_IN)) as engine,
            api_server(own_settings) as server,
            httpx2.AsyncClient(base_url=f"http://127.0.0.1:{server.port}") as client,
        ):
            trace = {"traceparent": sent} if sent else {}
            target = "/workflow?trigger=true" if way == "submit" else "/workflow"
            body = {"name": "traced", "dag": {"nodes": nodes}}
            answer = await client.post(target, json=body, headers=trace)
            execution_id = answer.json()["execution_id"]
            if way == "trigger":
                await client.post(f"/workflow/trigger/{execution_id}", headers=trace)
            await engine.end(execution_id)

        first, second = (one.headers.get("traceparent") for one in service.requests)
    assert first == passed_on
    assert second == (None if passed_on is None else TRACE)


async def test_a_service_that_refuses_fails_its_node_with_the_reason(settings):
    refusing = running_service(lambda _request: json_reply({"why": "closed"}, status=503))
    with refusing as http:
        definition = sample("linear").model_dump(by_alias=True)
        definition["dag"]["nodes"][0]["config"]["url"] = f"{http.url}/prices"
        async with Engine(using(settings, None), registry=Registry(BUILT_IN)) as engine:
            execution_id = await engine.run(type(sample("linear")).model_validate(definition))
            assert await engine.states(execution_id) == dict.fromkeys("ABC", "FAILED")
            error = (await engine.results(execution_id))["A"]["error"]
    assert "503" in error
    assert "closed" in error


async def test_a_workflow_of_made_up_services_runs_in_development_alone(settings):
    nodes = [
        node("A", handler="call_external_service", url="http://a-root-nobody-has-made"),
        node(
            "B",
            ["A"],
            handler="call_external_service",
            url="http://a-branch-nobody-has-made/{{ A.data }}",
        ),
    ]
    outputs = []
    for environment in ("development", "production"):
        own = replace(settings, environment=environment)
        async with Engine(own, registry=Registry(BUILT_IN)) as engine:
            execution_id = await engine.run(workflow(*nodes))
            outputs.append(await engine.results(execution_id))
    made_up, called = outputs
    first = "Simulated call to http://a-root-nobody-has-made"
    assert made_up == {
        "A": {"data": first},
        "B": {"data": f"Simulated call to http://a-branch-nobody-has-made/{first}"},
    }
    assert "cannot connect" in called["A"]["error"]
