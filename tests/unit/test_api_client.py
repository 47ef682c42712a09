"""The command line's client speaks the documented API and says what went wrong."""

from __future__ import annotations

import socket

import pytest

from flowd.cli.api_client import ApiClient, ApiError
from tests.local_services import Reply, Request, json_reply, running_service


def _api(request: Request) -> Reply:
    answers = {
        ("POST", "/workflow"): {"execution_id": "e1", "message": "Workflow accepted"},
        ("POST", "/workflow/trigger/e1"): {"message": "Workflow triggered", "execution_id": "e1"},
        ("GET", "/workflows/e1"): {"execution_id": "e1", "status": "COMPLETED"},
        ("GET", "/workflows/e1/results"): {"execution_id": "e1", "results": {"A": {"x": 1}}},
    }
    found = answers.get((request.method, request.target))
    return json_reply(found) if found else json_reply({"detail": "no such execution"}, 404)


def test_the_four_calls_are_the_documented_ones() -> None:
    with running_service(_api) as service:
        api = ApiClient(service.url)

        assert api.submit_workflow(b'{"name":"x"}') == "e1"
        api.trigger_workflow("e1")
        assert api.execution_status("e1") == "COMPLETED"
        assert api.execution_results("e1") == {"A": {"x": 1}}

    submitted = service.requests[0]
    assert submitted.body == b'{"name":"x"}'
    assert submitted.headers["content-type"] == "application/json"


def test_a_refusal_carries_the_api_s_own_words() -> None:
    with running_service(_api) as service:
        with pytest.raises(ApiError) as refusal:
            ApiClient(service.url).execution_status("a/b")

        url = f"{service.url}/workflows/a%2Fb"
        assert str(refusal.value) == f"GET {url}: answered 404: no such execution"


def test_an_answer_that_is_not_json_is_an_error() -> None:
    with (
        running_service(lambda _request: Reply(502, b"<html>")) as service,
        pytest.raises(ApiError, match="the answer is not JSON"),
    ):
        ApiClient(service.url).trigger_workflow("e1")


def test_nobody_listening_is_an_error() -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{unused.getsockname()[1]}"

        with pytest.raises(ApiError, match="Connection refused"):
            ApiClient(url).execution_status("e1")


def test_a_proxy_of_the_environment_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:1")

    with running_service(_api) as service:
        assert ApiClient(service.url).execution_status("e1") == "COMPLETED"
