"""Every route is described, guarded and in the OpenAPI document, and fails in the one shape."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import orjson
import pytest
from starlette.applications import Starlette
from starlette.testclient import TestClient

from flowd.api.app import all_routes, create_app
from flowd.api.contract.openapi import (
    documented_path,
    openapi_document,
    openapi_json,
    problem_codes,
)
from flowd.api.contract.problems import KINDS
from flowd.api.contract.route import Endpoint
from flowd.api.http.auth import Guard
from flowd.config.loading import load_settings
from flowd.manual import topics
from flowd.store import open_store
from flowd.tokens import SCOPES, change_tokens, new_token

ENDPOINTS = all_routes()
DASHBOARD = {"/", "/ui", "/ui/{view}", "/ui/static/{file}"}
PUBLIC = {"/health", "/livez", "/readyz", "/openapi.json", "/docs", "/docs/{topic}", *DASHBOARD}
IDS = {
    "execution_id": "0" * 24,
    "node_id": "A",
    "letter_id": "1-1",
    "handler": "echo",
    "topic": "tour",
    "name": "report",
    "file": "0/app.js",
    "view": "executions",
}


def names(endpoints: list[Endpoint]) -> list[str]:
    return [f"{one.method} {documented_path(one)}" for one in endpoints]


def target(endpoint: Endpoint) -> str:
    return documented_path(endpoint).format(**IDS)


TOKEN, TOKEN_TEXT = new_token("only", "admin")


@pytest.fixture
def app(tmp_path: Path) -> Starlette:
    """With a token, and no store to be reached."""
    config = tmp_path / "flowd.toml"
    config.touch()
    nowhere = load_settings(config, {}, {}).with_redis_socket(str(tmp_path / "no.sock"))
    change_tokens(tmp_path, lambda tokens: (*tokens, TOKEN))
    return create_app(
        open_store(nowhere), {"noop": None}, Guard(nowhere.api, tmp_path, "127.0.0.1")
    )


@pytest.fixture
def client(app: Starlette) -> Iterator[TestClient]:
    with TestClient(app) as client:
        yield client


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=names(ENDPOINTS))
def test_a_route_is_described(endpoint: Endpoint) -> None:
    described = endpoint.description

    assert described.summary.endswith(".")
    assert described.answers
    assert described.scope in ("public", *SCOPES)
    assert (described.scope == "public") == (documented_path(endpoint) in PUBLIC)
    if endpoint.method == "DELETE":
        assert described.scope == "admin"
    elif endpoint.method == "POST":
        assert described.scope != "read" or endpoint.path == "/workflow/validate"
    assert problem_codes(endpoint) <= KINDS.keys()


def test_every_route_of_the_application_is_an_endpoint(app: Starlette) -> None:
    assert [route for route in app.routes if not isinstance(route, Endpoint)] == []
    assert names(app.routes) == names(ENDPOINTS)


def test_every_route_has_its_operation_and_every_operation_its_name() -> None:
    document = openapi_document(ENDPOINTS)
    operations = {
        f"{method.upper()} {path}": operation
        for path, methods in document["paths"].items()
        for method, operation in methods.items()
    }

    assert sorted(operations) == sorted(names(ENDPOINTS))
    assert len({one["operationId"] for one in operations.values()}) == len(operations)


def test_every_reference_of_the_document_leads_somewhere() -> None:
    document = openapi_document(ENDPOINTS)
    text = orjson.dumps(document).decode()

    for reference in set(re.findall(r'"\$ref":"#/([^"]+)"', text)):
        found: Any = document
        for step in reference.split("/"):
            found = found[step]


@pytest.mark.parametrize("of", ["", "/nodes/{node_id}"])
def test_a_log_may_be_had_as_json_as_text_and_as_events(of: str) -> None:
    operation = openapi_document(ENDPOINTS)["paths"][f"/workflows/{{execution_id}}{of}/logs"]["get"]
    assert {one.partition(";")[0] for one in operation["responses"]["200"]["content"]} == {
        "application/json",
        "text/plain",
        "text/event-stream",
    }


def test_the_document_is_the_same_each_time() -> None:
    assert openapi_json(ENDPOINTS) == openapi_json(all_routes())


def test_parameters_that_may_be_left_out_are_never_null() -> None:
    for methods in openapi_document(ENDPOINTS)["paths"].values():
        for operation in methods.values():
            for parameter in operation.get("parameters", ()):
                assert b"null" not in orjson.dumps(parameter)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=names(ENDPOINTS))
def test_a_route_that_is_not_public_refuses_strangers_in_the_one_shape(
    client: TestClient, endpoint: Endpoint
) -> None:
    response = client.request(endpoint.method, target(endpoint))

    if endpoint.description.scope == "public":
        # At the root there is something for browsers only.
        assert response.status_code in ((404,) if endpoint.path == "/" else (200, 503))
        return
    assert response.status_code == 401
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["www-authenticate"].startswith("Bearer ")
    document = response.json()
    assert set(document) == {"type", "title", "status", "detail", "code", "errors"}
    assert document["code"] == "unauthenticated"


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=names(ENDPOINTS))
@pytest.mark.parametrize("query", ["", "?no_such_parameter=1"])
def test_a_route_fails_only_as_it_says_it_may(
    client: TestClient, endpoint: Endpoint, query: str
) -> None:
    headers = {"Authorization": f"Bearer {TOKEN_TEXT}"}

    response = client.request(endpoint.method, target(endpoint) + query, headers=headers)

    if response.status_code < 300:
        assert response.status_code in endpoint.description.answers
        return
    assert response.headers["content-type"] == "application/problem+json"
    document = response.json()
    assert set(document) == {"type", "title", "status", "detail", "code", "errors"}
    assert document["code"] in problem_codes(endpoint)
    assert response.status_code == document["status"] == KINDS[document["code"]].status
    assert all(set(one) == {"path", "code", "message"} for one in document["errors"])


@pytest.mark.parametrize("path", sorted({documented_path(one) for one in ENDPOINTS}))
def test_no_route_can_be_reached_by_another_method(client: TestClient, path: str) -> None:
    for method in ("PUT", "PATCH", "OPTIONS", "TRACE"):
        response = client.request(method, path.format(**IDS))
        assert response.status_code == 401
        assert response.json()["code"] == "unauthenticated"


def test_the_document_is_served(client: TestClient) -> None:
    response = client.get("/openapi.json")

    assert response.headers["content-type"] == "application/json"
    assert response.content == openapi_json(ENDPOINTS)


class Page(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def test_the_page_shows_every_operation_and_loads_nothing(client: TestClient) -> None:
    response = client.get("/docs")
    page = Page(response.text)

    policy = response.headers["content-security-policy"]
    assert policy.startswith("default-src 'none'; style-src 'sha256-")
    assert "unsafe" not in policy
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "base"}
    assert not any("src" in found or "style" in found for _, found in page.tags)
    links = {found["href"] for tag, found in page.tags if tag == "a"}
    ids = {f"#{found['id']}" for _, found in page.tags if "id" in found}
    assert links == (ids & links) | {"/openapi.json"} | {f"docs/{topic}" for topic in topics()}
    operations = {f"#{one.endpoint.__name__}" for one in ENDPOINTS}
    assert operations <= ids
    assert "curl -X POST http://testserver/workflow " in response.text


def test_only_what_is_short_is_kept_in_one_line_of_the_page(client: TestClient) -> None:
    """The values of an enum were, and the page was twice as wide as the window."""
    page = client.get("/docs").text
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    rules = re.findall(r"([^{}]+)\{[^{}]*white-space: nowrap", style)
    names = [re.sub("<[^>]+>", "", one) for one in re.findall(r"<th>(.*?)</th>", page)]

    assert [one.strip() for rule in rules for one in rule.split(",")] == ["th"]
    assert max(map(len, names)) < 40


def test_a_page_shows_names_as_they_are_written(client: TestClient) -> None:
    """Headings were capitalized: the manual spoke of Noop and Call_external_service."""
    page = client.get("/docs/handlers").text

    assert re.search(r"<h2 [^>]*>call_external_service</h2>", page)
    assert "text-transform" not in page


@pytest.mark.parametrize("path", ["/docs", "/docs/handlers"])
def test_a_narrow_page_keeps_its_contents_and_its_tables(client: TestClient, path: str) -> None:
    """On a telephone no page led to another, and tables were wider than the window."""
    narrow = client.get(path).text.partition("@media (max-width: 56rem) {")[2]
    rules = dict(re.findall(r"([a-z]+) \{ ([^}]*)\}", narrow))

    assert "display: none" not in rules["nav"]
    assert "overflow-wrap: anywhere" in rules["td"]
    assert "overflow-x: auto" in rules["table"]


@pytest.mark.parametrize("topic", topics())
def test_a_page_of_the_manual_loads_nothing_and_links_to_what_is_there(
    client: TestClient, topic: str
) -> None:
    response = client.get(f"/docs/{topic}")
    page = Page(response.text)

    assert response.headers["content-security-policy"].startswith("default-src 'none'")
    assert not {tag for tag, _ in page.tags} & {"script", "link", "img", "iframe", "base"}
    anchors = {found["id"] for _, found in page.tags if "id" in found}
    for link in [found["href"] or "" for tag, found in page.tags if tag == "a"]:
        target, _, anchor = link.partition("#")
        if "://" not in link and link != "../docs":
            assert client.get(f"/docs/{target or topic}").status_code == 200, link
            assert target or anchor in anchors, link


def test_a_topic_that_does_not_exist_is_told_with_the_one_that_is_near(client: TestClient) -> None:
    response = client.get("/docs/secretz")

    assert (response.status_code, response.json()["code"]) == (404, "unknown_topic")
    assert "did you mean 'secrets'?" in response.json()["detail"]
