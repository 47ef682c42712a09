"""The linear sample against real services: rendered requests reach them, their answers stay."""

from __future__ import annotations

from dataclasses import replace
from urllib.parse import unquote

from flowd.workers.registry import Registry
from tests.flow.engine import Engine
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
        definition = sample("linear").model_dump()
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


async def test_a_service_that_refuses_fails_its_node_with_the_reason(settings):
    refusing = running_service(lambda _request: json_reply({"why": "closed"}, status=503))
    with refusing as http:
        definition = sample("linear").model_dump()
        definition["dag"]["nodes"][0]["config"]["url"] = f"{http.url}/prices"
        async with Engine(using(settings, None), registry=Registry(BUILT_IN)) as engine:
            execution_id = await engine.run(type(sample("linear")).model_validate(definition))
            assert await engine.states(execution_id) == dict.fromkeys("ABC", "FAILED")
            error = (await engine.results(execution_id))["A"]["error"]
    assert "503" in error
    assert "closed" in error
