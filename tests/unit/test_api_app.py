"""The application with no Redis to be reached: what needs none, and what is said where one does."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from flowd.api.app import all_routes, create_app
from flowd.api.contract.route import Endpoint
from flowd.api.shared import shared_of
from flowd.config.loading import load_settings
from flowd.errors import CorruptExecution, FlowdError, StoreError, StoreFull, StoreReadOnly
from flowd.redaction import REDACTOR
from flowd.store import open_store

GOOD = {"name": "one", "dag": {"nodes": [{"id": "A", "handler": "noop"}]}}
SOME_ID = "0123456789abcdef01234567"


@pytest.fixture
def app(tmp_path: Path) -> Starlette:
    config = tmp_path / "flowd.toml"
    config.touch()
    nowhere = load_settings(config, {}, {}).with_redis_socket(str(tmp_path / "no.sock"))
    return create_app(open_store(nowhere), {"noop": None})


@pytest.fixture
def client(app: Starlette) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    assert response.status_code == status
    assert response.headers["content-type"] == "application/problem+json"
    document: dict[str, Any] = response.json()
    assert document["status"] == status
    assert document["code"] == code
    assert set(document) == {"type", "title", "status", "detail", "code", "errors"}
    return document


def test_health_answers_without_a_store(client: TestClient) -> None:
    response = client.get("/health")
    assert (response.status_code, response.content) == (200, b'{"status":"ok"}')
    assert response.headers["content-type"] == "application/json"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/workflow"),
        ("POST", f"/workflow/trigger/{SOME_ID}"),
        ("GET", f"/workflows/{SOME_ID}"),
        ("GET", f"/workflows/{SOME_ID}/results"),
    ],
)
def test_without_a_store_requests_are_told_to_come_back(
    client: TestClient, method: str, path: str
) -> None:
    response = client.request(method, path, json=GOOD if path == "/workflow" else None)
    problem(response, 503, "store_unavailable")
    assert int(response.headers["retry-after"]) > 0


@pytest.mark.parametrize("execution_id", ["x", "0" * 23, "0" * 25, "G" * 24, SOME_ID.upper(), "é"])
def test_what_cannot_be_an_id_is_unknown_without_a_store(
    client: TestClient, execution_id: str
) -> None:
    problem(client.get(f"/workflows/{execution_id}"), 404, "unknown_execution")
    problem(client.get(f"/workflows/{execution_id}/results"), 404, "unknown_execution")
    problem(client.post(f"/workflow/trigger/{execution_id}"), 404, "unknown_execution")


@pytest.mark.parametrize(
    ("path", "kept"),
    [
        ("/health", "no-store"),
        ("/nowhere", "no-store"),
        ("/workflows/unknown/summary", "no-store"),
        ("/openapi.json", "no-store"),
        ("/ui/", "no-cache"),
    ],
)
def test_no_answer_is_kept_by_anybody(client: TestClient, path: str, kept: str) -> None:
    assert client.get(path).headers.get_list("cache-control") == [kept]


def test_an_unknown_path_is_a_problem(client: TestClient) -> None:
    document = problem(client.get("/nope"), 404, "not_found")
    assert document["detail"] == "there is nothing at '/nope'"


@pytest.mark.parametrize("path", ["/health/", "/workflow/", f"/workflows/{SOME_ID}/"])
def test_a_slash_too_many_is_named_and_leads_nowhere_else(client: TestClient, path: str) -> None:
    """It was a redirect to http:// and the `Host` of the request, past a proxy with TLS."""
    document = problem(client.post(path, follow_redirects=False), 404, "not_found")
    assert document["detail"] == f"there is nothing at {path!r}; leave out the slash at its end"
    document = problem(client.get("/"), 404, "not_found")
    assert document["detail"] == "there is nothing at '/'; /docs describes this API"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("POST", "/health", {"GET", "HEAD"}),
        ("GET", "/workflow", {"POST"}),
        ("GET", f"/workflow/trigger/{SOME_ID}", {"POST"}),
        ("PUT", f"/workflows/{SOME_ID}", {"GET", "HEAD", "DELETE"}),
    ],
)
def test_another_method_is_a_problem_that_names_the_right_one(
    client: TestClient, method: str, path: str, allowed: set[str]
) -> None:
    response = client.request(method, path)
    problem(response, 405, "method_not_allowed")
    assert set(response.headers["allow"].split(", ")) == allowed


def test_a_wrong_workflow_is_a_problem_with_all_its_reasons(client: TestClient) -> None:
    wrong = {
        "name": "x",
        "dag": {
            "nodes": [
                {"id": "A", "handler": "nop", "dependencies": ["B"]},
                {"id": "B", "handler": "noop", "dependencies": ["A"]},
            ]
        },
    }
    document = problem(client.post("/workflow", json=wrong), 400, "invalid_workflow")
    assert "cycle A -> B -> A" in document["detail"]
    assert [(one["path"], one["code"]) for one in document["errors"]] == [
        ("dag.nodes[0].dependencies[0]", "cycle"),
        ("dag.nodes[0].handler", "unknown_handler"),
    ]


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000, b'{"name": NaN}', b"[]"])
def test_garbage_is_a_problem(client: TestClient, content: bytes) -> None:
    problem(client.post("/workflow", content=content), 400, "invalid_workflow")


def test_a_body_over_the_limit_is_refused_announced_or_not(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared_of(client.app), "body_bytes_max", 1000)
    chunks = (b"x" * 100 for _ in range(11))
    for response in (
        client.post("/workflow", content=b"x" * 1001),
        client.post("/workflow", content=chunks),
    ):
        problem(response, 413, "body_too_large")
        assert response.headers["connection"] == "close"
    padded = json.dumps(GOOD).encode().ljust(1000)
    problem(client.post("/workflow", content=padded), 503, "store_unavailable")


def test_a_small_body_that_is_no_object_is_said_to_be_none(client: TestClient) -> None:
    document = problem(client.post(f"/workflow/trigger/{SOME_ID}", json=[]), 400, "invalid_request")
    assert document["errors"] == [
        {"path": "", "code": "wrong_type", "message": "expected an object"}
    ]


@pytest.mark.parametrize("error", [RuntimeError("broken"), StoreError("broken \ud800")])
def test_in_development_a_defect_is_answered_with_the_end_of_its_traceback(
    tmp_path: Path, error: Exception
) -> None:
    async def fail(_request: Request) -> NoReturn:
        REDACTOR.learn("kept-to-itself")
        raise error from ValueError("kept-to-itself")

    nowhere = load_settings(None, {}, {}).with_redis_socket(str(tmp_path / "no.sock"))
    app = create_app(open_store(nowhere), {"noop": None}, shows_tracebacks=True)
    app.router.routes.append(Route("/fail", fail))
    with TestClient(app) as client:
        document = client.get("/fail").json()

    assert (document["status"], document["code"]) == (500, "internal")
    assert "in fail\n" in document["traceback"]
    assert ": broken" in document["traceback"].splitlines()[-1]
    assert "kept-to-itself" not in document["traceback"]


class _Unmapped(StoreError):
    code = "no_such_code_in_the_table"


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        (StoreFull("full"), 503, "store_full"),
        (StoreReadOnly("read-only"), 503, "store_read_only"),
        (CorruptExecution(SOME_ID, "its status is 'x'"), 500, "corrupt_execution"),
        (StoreError("a secret of the store"), 500, "internal"),
        (_Unmapped("a secret of the store"), 500, "internal"),
        (RuntimeError("a secret of the code"), 500, "internal"),
    ],
)
def test_an_error_is_answered_by_its_code_and_a_defect_is_logged_not_told(
    app: Starlette,
    error: Exception,
    status: int,
    code: str,
    capfd: pytest.CaptureFixture[str],
) -> None:
    async def fail(_request: Request) -> NoReturn:
        raise error

    app.router.routes.append(Route("/fail", fail))
    with TestClient(app) as client:
        response = client.get("/fail")
    problem(response, status, code)
    assert "secret" not in response.text
    assert "Traceback" not in response.text
    assert "retry-after" in response.headers or status == 500
    logged = capfd.readouterr().err
    assert ("request.failed" in logged) == (status == 500)
    if not isinstance(error, FlowdError):
        assert "Traceback" in logged
        assert "a secret of the code" in logged


async def test_an_error_behind_the_beginning_of_an_answer_is_logged_and_ends_it(
    app: Starlette, capfd: pytest.CaptureFixture[str]
) -> None:
    async def begin_and_fail(_scope: Scope, _receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        raise StoreFull("full")

    class Failing:
        __call__ = staticmethod(begin_and_fail)

    app.router.routes.append(Route("/fail", Failing()))
    with TestClient(app) as client, pytest.raises(StoreFull):
        client.get("/fail")
    assert "request.failed" in capfd.readouterr().err


def test_an_endpoint_is_found_without_trying_all_of_them(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    matches, tried = Endpoint.matches, []

    def trying(self: Endpoint, scope: Scope) -> Any:
        tried.append(self)
        return matches(self, scope)

    monkeypatch.setattr(Endpoint, "matches", trying)

    problem(client.get("/dead-letters/1-0"), 503, "store_unavailable")

    assert {one.path.split("/")[1] for one in tried} == {"dead-letters"}


def test_no_endpoint_has_a_parameter_before_its_second_slash() -> None:
    assert [one.path for one in all_routes() if "{" in one.path.split("/")[1]] == []
