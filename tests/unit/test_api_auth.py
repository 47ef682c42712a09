"""The gate before the routes, with the application behind it and no store to be reached."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx2
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send

from flowd.api.app import create_app
from flowd.api.http import auth
from flowd.api.http.auth import Guard
from flowd.api.http.event_stream import ASK_AGAIN
from flowd.api.http.limits import RateLimit
from flowd.config import ApiSettings
from flowd.config.loading import load_settings
from flowd.store import open_store
from flowd.tokens import TOKENS_FILE, change_tokens, new_token

SOME_ID = "0123456789abcdef01234567"
LOOPBACK = "http://127.0.0.1:8000"
Make = Callable[..., TestClient]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[Make]:
    """A client of a flowd with these [api] settings, at this address."""
    config = tmp_path / "flowd.toml"
    config.touch()
    nowhere = load_settings(config, {}, {}).with_redis_socket(str(tmp_path / "no.sock"))
    clients: list[TestClient] = []

    def make(address: str | None = "127.0.0.1", **api: Any) -> TestClient:
        guard = Guard(ApiSettings(**api), tmp_path, address)
        app = create_app(open_store(nowhere), {"noop": None}, guard)
        clients.append(TestClient(app, base_url=LOOPBACK))
        return clients[-1].__enter__()

    yield make
    for client in clients:
        client.__exit__()


@pytest.fixture
def lines(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the gate writes to the log."""
    found: list[dict[str, Any]] = []

    def write(event: str, **facts: Any) -> None:
        found.append({"event": event, **facts})

    monkeypatch.setattr(auth, "log", SimpleNamespace(info=write, warning=write, error=write))
    return found


def token(folder: Path, scope: str, *, name: str = "", lifetime_ms: int | None = None) -> str:
    made, text = new_token(name or scope, scope, lifetime_ms=lifetime_ms)
    change_tokens(folder, lambda tokens: (*tokens, made))
    return text


def bearer(text: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {text}"}


def problem(response: httpx2.Response, status: int, code: str) -> dict[str, Any]:
    document: dict[str, Any] = response.json()
    assert (response.status_code, document["code"]) == (status, code)
    assert response.headers["content-type"] == "application/problem+json"
    return document


def test_without_tokens_this_machine_may_do_anything(make: Make) -> None:
    client = make()

    problem(client.get("/workflows"), 503, "store_unavailable")
    problem(client.delete("/dead-letters"), 503, "store_unavailable")


def test_at_a_public_address_nobody_gets_in_without_a_token(make: Make) -> None:
    client = make("0.0.0.0")

    problem(client.get("/workflows"), 401, "unauthenticated")
    assert client.get("/health").json() == {"status": "ok"}


def test_each_scope_opens_what_it_says(make: Make, tmp_path: Path) -> None:
    texts = {scope: token(tmp_path, scope) for scope in ("read", "trigger", "admin")}
    client = make()
    asked = (
        ("GET", "/workflows"),
        ("POST", f"/workflow/trigger/{SOME_ID}"),
        ("DELETE", f"/workflows/{SOME_ID}"),
    )

    found = {
        scope: [
            client.request(method, path, headers=bearer(text)).status_code for method, path in asked
        ]
        for scope, text in texts.items()
    }

    assert found == {
        "read": [503, 403, 403],
        "trigger": [503, 503, 403],
        "admin": [503, 503, 503],
    }
    refused = client.request(*asked[2], headers=bearer(texts["trigger"]))
    document = problem(refused, 403, "forbidden")
    assert document["detail"] == "this takes the scope 'admin'; the token 'trigger' has 'trigger'"
    assert 'error="insufficient_scope"' in refused.headers["www-authenticate"]


def test_what_is_no_good_token_is_refused_and_told_so(make: Make, tmp_path: Path) -> None:
    text = token(tmp_path, "admin")
    expired = token(tmp_path, "admin", name="old", lifetime_ms=-1)
    client = make()

    wrong = [
        bearer(""),
        bearer("wrong"),
        bearer(expired),
        bearer(text[:-1]),
        {"Authorization": text},
        {"Authorization": f"Basic {text}"},
        {"Authorization": "Bearer \x7f"},
    ]
    for headers in wrong:
        response = client.get("/workflows", headers=headers)
        problem(response, 401, "unauthenticated")
        assert 'error="invalid_token"' in response.headers["www-authenticate"]
    twice = [("Authorization", f"Bearer {text}"), ("Authorization", f"Bearer {text}")]
    problem(client.get("/workflows", headers=twice), 401, "unauthenticated")
    response = client.get("/workflows")
    assert response.headers["www-authenticate"] == 'Bearer realm="flowd"'
    problem(
        client.get("/workflows", headers={"authorization": f"bEARER  {text}"}),
        503,
        "store_unavailable",
    )


@pytest.mark.parametrize("end", ["expired", "revoked"])
def test_an_answer_that_goes_on_does_so_no_longer_than_its_token(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, end: str
) -> None:
    text = token(tmp_path, "read", lifetime_ms=60_000)
    later_s = 0.0

    async def follow(scope: Scope, receive: Receive, send: Send) -> None:
        answers.append(scope[ASK_AGAIN](scope))
        if end == "revoked":
            change_tokens(tmp_path, lambda _: ())
        nonlocal later_s
        later_s = 61.0
        answers.append(scope[ASK_AGAIN](scope))
        await Response()(scope, receive, send)

    answers: list[bool] = []
    clock = SimpleNamespace(
        monotonic=lambda: time.monotonic() + later_s,
        time_ns=lambda: time.time_ns() + (int(later_s * 1e9) if end == "expired" else 0),
    )
    monkeypatch.setattr(auth, "time", clock)
    gate = auth.AuthMiddleware(follow, Guard(ApiSettings(), tmp_path, "127.0.0.1"), [])

    assert TestClient(gate, base_url=LOOPBACK).get("/events", headers=bearer(text)).is_success
    assert answers == [True, False]


def test_public_paths_ask_nobody_and_unknown_ones_everybody(make: Make, tmp_path: Path) -> None:
    text = token(tmp_path, "read")
    client = make()

    assert client.get("/livez").status_code == 200
    assert client.head("/health").status_code == 200
    problem(client.get("/nope"), 401, "unauthenticated")
    problem(client.get("/nope", headers=bearer(text)), 404, "not_found")
    problem(client.put("/health"), 401, "unauthenticated")
    problem(client.put("/health", headers=bearer(text)), 405, "method_not_allowed")
    for path in (
        "/workflows/",
        f"{LOOPBACK}//workflows",
        "/WORKFLOWS",
        "/workflows%2f",
        "/health/../workflows",
    ):
        assert client.get(path).status_code == 401, path


def test_a_token_is_told_what_it_may_do(make: Make, tmp_path: Path) -> None:
    assert make().get("/token").json() == {
        "name": None, "scope": "admin", "expires_ms": None, "required": False,
    }  # fmt: skip
    text = token(tmp_path, "trigger", name="ops", lifetime_ms=60_000)
    client = make()

    told = client.get("/token", headers=bearer(text)).json()

    assert told.pop("expires_ms") > time.time() * 1000
    assert told == {"name": "ops", "scope": "trigger", "required": True}
    assert client.get("/token").status_code == 401


def test_who_may_read_acts_on_none_and_only_an_admin_deletes_many(
    make: Make, tmp_path: Path
) -> None:
    texts = {scope: token(tmp_path, scope) for scope in ("read", "trigger", "admin")}
    client = make()

    def act(scope: str, action: str) -> httpx2.Response:
        body = {"action": action, "ids": [SOME_ID], "preview": True}
        return client.post("/workflows/actions", json=body, headers=bearer(texts[scope]))

    for action in ("cancel", "delete"):
        problem(act("read", action), 403, "forbidden")
    problem(act("trigger", "delete"), 403, "forbidden")
    problem(act("trigger", "cancel"), 503, "store_unavailable")
    problem(act("admin", "delete"), 503, "store_unavailable")


def test_a_route_that_says_no_scope_takes_an_admin(make: Make, tmp_path: Path) -> None:
    text, reader = token(tmp_path, "admin"), token(tmp_path, "read")
    app = make().app
    assert isinstance(app, Starlette)

    async def bare(_request: Request) -> Response:
        return Response(b"bare")

    gate = auth.AuthMiddleware(app, Guard(ApiSettings(), tmp_path, None), [Route("/bare", bare)])
    app.router.routes.append(Route("/bare", bare))
    client = TestClient(gate)

    problem(client.get("/bare", headers=bearer(reader)), 403, "forbidden")
    assert client.get("/bare", headers=bearer(text)).content == b"bare"


def test_a_damaged_file_opens_nothing(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]]
) -> None:
    monkeypatch.setattr(auth, "LOOK_EVERY_S", 0.0)
    text = token(tmp_path, "admin")
    client = make()
    problem(client.get("/workflows", headers=bearer(text)), 503, "store_unavailable")

    (tmp_path / TOKENS_FILE).write_text("{")

    problem(client.get("/workflows", headers=bearer(text)), 401, "unauthenticated")
    problem(client.get("/workflows"), 401, "unauthenticated")
    assert [one["event"] for one in lines].count("tokens.unreadable") == 1


def test_the_file_is_looked_at_once_in_a_while(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    client = make()
    looks: list[str] = []

    def stat(path: str) -> os.stat_result:
        looks.append(path)
        return Path(path).stat()

    monkeypatch.setattr(auth, "os", SimpleNamespace(stat=stat))

    for _ in range(50):
        client.get("/health")

    assert len(looks) <= 2


def test_changes_are_written_down_with_who_made_them(
    make: Make, tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    admin, reader = token(tmp_path, "admin", name="ops"), token(tmp_path, "read")
    client = make()

    client.get("/workflows", headers=bearer(admin))
    client.post("/workflow/validate", headers=bearer(admin))
    client.post(f"/workflows/{SOME_ID}/cancel", headers=bearer(admin))
    client.post(f"/workflows/{SOME_ID}/cancel", headers=bearer(reader))
    client.post(f"/workflows/{SOME_ID}/cancel", headers=bearer("wrong"))

    path = f"/workflows/{SOME_ID}/cancel"
    found = [
        (one["event"], one.get("token"), one["method"], one["path"], one.get("code"))
        for one in lines
    ]
    assert found == [
        ("request.authorized", "ops", "POST", path, None),
        ("request.refused", "read", "POST", path, "forbidden"),
        ("request.refused", None, "POST", path, "unauthenticated"),
    ]
    assert "wrong" not in str(lines)


def test_refusals_cannot_fill_the_log(
    make: Make, monkeypatch: pytest.MonkeyPatch, lines: list[dict[str, Any]]
) -> None:
    now_s = 1000.0
    client = make("0.0.0.0")
    clock = SimpleNamespace(monotonic=lambda: now_s, time_ns=time.time_ns)
    monkeypatch.setattr(auth, "time", clock)

    for _ in range(auth.REFUSALS_LOGGED_MAX + 30):
        client.get("/workflows")
    for _ in range(2):
        now_s += 1
        client.get("/workflows")

    assert len(lines) == auth.REFUSALS_LOGGED_MAX + 2
    assert [one.get("unlogged") for one in lines[-2:]] == [30, None]


def test_another_host_is_refused_with_the_setting_that_allows_it(
    make: Make, tmp_path: Path
) -> None:
    client = make()

    document = problem(client.get("/health", headers={"Host": "evil.example"}), 421, "bad_host")
    assert "api.allowed_hosts" in document["detail"]
    allowing = make(allowed_hosts=("evil.example",))
    assert allowing.get("/health", headers={"Host": "evil.example"}).status_code == 200
    assert allowing.get("/health").status_code == 421
    # No browser reaches a unix socket, and none knows a token.
    assert make(None).get("/health", headers={"Host": "evil.example"}).status_code == 200
    token(tmp_path, "read")
    assert make().get("/health", headers={"Host": "evil.example"}).status_code == 200


def test_a_page_of_another_site_changes_nothing(
    make: Make, tmp_path: Path, lines: list[dict[str, Any]]
) -> None:
    """Any page a browser shows could submit and start workflows: a form needs no permission."""
    client = make()
    form = {"Content-Type": "text/plain", "Origin": "https://evil.example"}
    for headers in (
        {**form, "Sec-Fetch-Site": "cross-site"},
        {**form, "Origin": LOOPBACK, "Sec-Fetch-Site": "same-site"},
        {**form, "Origin": "null"},
        {**form, "Origin": "http://127.0.0.1:3000"},
        form,
    ):
        for path in ("/workflow?trigger=true", f"/workflows/{SOME_ID}/cancel"):
            problem(client.post(path, headers=headers, content=b"{}"), 403, "cross_site")
    assert {one["code"] for one in lines} == {"cross_site"}

    for own in (
        {},
        {"Origin": LOOPBACK},
        {"Origin": LOOPBACK, "Sec-Fetch-Site": "same-origin"},
        {"Sec-Fetch-Site": "none"},
    ):
        problem(client.post("/workflow", headers=own, content=b"{}"), 400, "invalid_workflow")
    # What a page only looks at, it cannot read either.
    problem(client.get("/workflows", headers=form), 503, "store_unavailable")
    text = token(tmp_path, "trigger")
    response = make().post("/workflow", headers={**form, **bearer(text)}, content=b"{}")
    problem(response, 400, "invalid_workflow")


def test_too_many_requests_are_told_to_wait(
    make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # However long three requests take, it is one second.
    monkeypatch.setattr(RateLimit.__init__, "__defaults__", (lambda: 1000.0,))
    client = make(rate_limit=2)
    statuses = [client.get("/workflows").status_code for _ in range(3)]
    assert statuses == [503, 503, 429]
    response = client.get("/workflows")
    problem(response, 429, "rate_limited")
    assert response.headers["retry-after"] == "1"
    assert all(client.get("/health").status_code == 200 for _ in range(5))

    one, two = token(tmp_path, "read", name="one"), token(tmp_path, "read", name="two")
    client = make(rate_limit=2)
    for text in (one, two):
        statuses = [client.get("/workflows", headers=bearer(text)).status_code for _ in range(3)]
        assert statuses == [503, 503, 429]
    statuses = [client.get("/workflows", headers=bearer(str(n))).status_code for n in range(3)]
    assert statuses == [401, 401, 429]


def test_a_body_may_have_what_the_setting_says(make: Make) -> None:
    client = make(body_max_mb=0.5)

    response = client.post("/workflow", content=b" " * (2**19 + 1))

    document = problem(response, 413, "body_too_large")
    assert "api.body_max_mb" in document["detail"]
    problem(client.post("/workflow", content=b" " * 2**19), 400, "invalid_workflow")
