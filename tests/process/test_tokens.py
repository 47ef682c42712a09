"""Who may come in: tokens of `flowd token`, and a flowd that other machines could reach."""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tests.daemon import PATIENCE_S, wait_until, whole_lines
from tests.process.flowd_process import CONFIG, Flowd, clean_environ, definition, node

Run = Callable[..., Flowd]


def flowd_token(folder: Path, *arguments: str) -> str:
    if not (folder / "flowd.toml").exists():
        (folder / "flowd.toml").write_text(CONFIG)
    done = subprocess.run(
        [sys.executable, "-m", "flowd.cli.main", "token", *arguments],
        cwd=folder,
        env=clean_environ(),
        capture_output=True,
        check=True,
        text=True,
    )
    return done.stdout.strip()


def call(
    flowd: Flowd, method: str, path: str, body: bytes | None = None, **headers: str
) -> tuple[int, Any]:
    connection = http.client.HTTPConnection(
        "127.0.0.1", urlsplit(flowd.url).port, timeout=PATIENCE_S
    )
    try:
        connection.request(method, path, body, headers)
        response = connection.getresponse()
        return response.status, json.loads(response.read())
    finally:
        connection.close()


def status_of(flowd: Flowd, method: str, path: str, token: str = "", body: bytes = b"") -> int:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return call(flowd, method, path, body, **headers)[0]


def test_an_address_others_can_reach_takes_a_token(run_flowd: Run, tmp_path: Path) -> None:
    refused = run_flowd("start", "--host", "0.0.0.0")
    assert refused.process.wait(PATIENCE_S) == 78
    assert "flowd token create" in refused.stderr
    assert not (tmp_path / "data" / "redis.sock").exists()

    token = flowd_token(tmp_path, "create", "--name", "ops", "--scope", "admin")
    flowd = run_flowd("start", "--workers", "1", "--host", "0.0.0.0")
    flowd.wait_until_running()

    assert status_of(flowd, "GET", "/health") == 200
    assert status_of(flowd, "GET", "/workflows") == 401
    assert status_of(flowd, "GET", "/workflows", token) == 200
    # Also when the tokens are taken away from under it.
    (tmp_path / "data" / "tokens.json").unlink()
    wait_until(lambda: status_of(flowd, "GET", "/workflows", token) == 401, "the token to go")
    assert status_of(flowd, "GET", "/workflows") == 401
    assert run_flowd("api", "--host", "0.0.0.0").process.wait(PATIENCE_S) == 78


def test_an_answer_bears_the_name_of_the_token_it_came_with(run_flowd: Run, tmp_path: Path) -> None:
    reader = flowd_token(tmp_path, "create", "--name", "reader", "--scope", "read")
    alice = flowd_token(tmp_path, "create", "--name", "alice", "--scope", "trigger")
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    gates = [node(one, handler="signal") for one in "AB"]
    headers = {"Authorization": f"Bearer {alice}"}
    path = "/workflow?trigger=true"
    _, submitted = call(flowd, "POST", path, definition(*gates), **headers)
    path = f"/workflows/{submitted['execution_id']}/nodes"

    assert status_of(flowd, "POST", f"{path}/A/signal", reader, b'{"data": 1}') == 403
    status, answer = call(flowd, "POST", f"{path}/A/signal", b'{"data": 1}', **headers)
    assert (status, answer["decision"]["by"]) == (200, "alice")
    assert status_of(flowd, "POST", f"{path}/B/signal", alice, b'{"reject": "no"}') == 200

    def ended(node_id: str) -> Any:
        shown = call(flowd, "GET", f"{path}/{node_id}", **headers)[1]
        return shown if shown["state"] in ("COMPLETED", "FAILED") else None

    assert wait_until(lambda: ended("A"), "A to end")["output"]["by"] == "alice"
    assert wait_until(lambda: ended("B"), "B to end")["error"] == "it was rejected by 'alice': no"
    lines = map(json.loads, whole_lines(tmp_path / "stderr"))
    told = {(one["node_id"], one["by"]) for one in lines if one["event"] == "node.signalled"}
    assert told == {("A", "alice"), ("B", "alice")}


def test_tokens_come_and_go_while_flowd_runs(run_flowd: Run, tmp_path: Path) -> None:
    flowd = run_flowd("start", "--workers", "1")
    flowd.wait_until_running()
    work = definition(node("A"))
    assert status_of(flowd, "POST", "/workflow", body=work) == 200

    reader = flowd_token(tmp_path, "create", "--name", "reader", "--scope", "read")
    wait_until(lambda: status_of(flowd, "GET", "/workflows") == 401, "the token to count")
    assert status_of(flowd, "GET", "/workflows", reader) == 200
    assert status_of(flowd, "POST", "/workflow", reader, work) == 403

    writer = flowd_token(tmp_path, "create", "--name", "writer", "--scope", "trigger")
    wait_until(
        lambda: status_of(flowd, "POST", "/workflow", writer, work) == 200, "the second token"
    )
    assert status_of(flowd, "DELETE", "/dead-letters", writer) == 403

    listed = json.loads(flowd_token(tmp_path, "list", "-o", "json"))
    assert [(one["name"], one["scope"]) for one in listed] == [
        ("reader", "read"),
        ("writer", "trigger"),
    ]
    flowd_token(tmp_path, "revoke", "reader")
    flowd_token(tmp_path, "revoke", listed[1]["id"])
    wait_until(
        lambda: status_of(flowd, "POST", "/workflow", writer, work) == 401, "the tokens to go"
    )
    # The last one was revoked, and that opens nothing.
    assert status_of(flowd, "GET", "/workflows") == 401

    events = [json.loads(line) for line in whole_lines(tmp_path / "stderr")]
    authorized = [one for one in events if one["event"] == "request.authorized"]
    assert {one["token"] for one in authorized} == {"writer"}
    assert {one["token_id"] for one in authorized} == {listed[1]["id"]}
    assert {(one["method"], one["path"]) for one in authorized} == {("POST", "/workflow")}
    refused = [one for one in events if one["event"] == "request.refused"]
    assert {one["code"] for one in refused} == {"unauthenticated", "forbidden"}
    for token in (reader, writer):
        for file in tmp_path.rglob("*"):
            if file.is_file() and not file.is_socket():
                assert token.encode() not in file.read_bytes(), file


def test_a_stream_ends_with_its_token(run_flowd: Run, tmp_path: Path) -> None:
    one = flowd_token(tmp_path, "create", "--name", "one", "--scope", "trigger")
    other = flowd_token(tmp_path, "create", "--name", "other", "--scope", "trigger")
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_for_status(lambda status: status["state"] == "RUNNING", "the API")

    def submit(token: str) -> tuple[int, Any]:
        authorization = f"Bearer {token}"
        work = definition(node("A"))
        return call(flowd, "POST", "/workflow", work, Authorization=authorization)

    connection = http.client.HTTPConnection(
        "127.0.0.1", urlsplit(flowd.url).port, timeout=PATIENCE_S
    )
    connection.request("GET", "/events", headers={"Authorization": f"Bearer {one}"})
    stream = connection.getresponse()
    assert stream.readline() == b"retry: 1000\n"
    flowd_token(tmp_path, "revoke", "one")
    wait_until(lambda: submit(one)[0] == 401, "the token to go")

    _, last = submit(other)

    assert last["execution_id"].encode() not in stream.read()
    connection.close()


def test_a_name_that_leads_here_by_stealth_is_refused(run_flowd: Run) -> None:
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_for_status(bool, "an answer")
    wait_until(lambda: flowd.stdout, "the start")

    status, problem = call(flowd, "GET", "/health", Host="evil.example")

    assert (status, problem["code"]) == (421, "bad_host")
    assert "api.allowed_hosts" in problem["detail"]
    assert call(flowd, "GET", "/health", Host="localhost:1")[0] == 200
