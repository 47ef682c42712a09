"""`flowd get` shows what failed nodes left beside their errors."""

from __future__ import annotations

import json
import re
from contextlib import contextmanager
from typing import Any

import pytest
from click.testing import CliRunner

from flowd.cli.commands import executions

SOME_ID = "0123456789abcdef01234567"
TRACE = "Traceback (most recent call last):\n  File x\nKeyError: 'price'"
WRITTEN = {"exit_code": 3, "stdout": "so far\n", "stderr": "went \x1b[31mwrong\n"}


class StubClient:
    """An execution of one node that ended well and of six that did not."""

    asked: list[str]
    last_attempt = 1

    def __init__(self) -> None:
        self.asked = []

    def get(self, execution_id: str) -> dict[str, Any]:
        usage = {"calls": 0}
        names = ("name", "rerun_of", "error", "submitted_ms", "triggered_ms", "duration_ms")
        facts = dict.fromkeys((*names, "input", "budget", "cancelling"))
        return {"execution_id": execution_id, "status": "FAILED", "usage": usage, **facts}

    def nodes(self, _execution_id: str) -> list[dict[str, Any]]:
        facts = dict.fromkeys(("worker", "started_ms", "duration_ms"))
        common = {"handler": "h", "dependencies": [], "error": "e", **facts}
        states = {"fine": ("COMPLETED", 1), "below": ("FAILED", None)}
        names = ("fine", "below", "A", "B", "C", "D")
        return [
            {"node_id": name, "state": states.get(name, ("FAILED", 1))[0], **common}
            | {"attempt": states.get(name, ("FAILED", self.last_attempt))[1]}
            for name in names
        ]

    def node(self, _execution_id: str, node_id: str) -> dict[str, Any]:
        self.asked.append(node_id)
        traceback, output = {"A": (TRACE, None), "B": (None, WRITTEN)}.get(node_id, (None, None))
        return {"node_id": node_id, "traceback": traceback, "output": output, "dependencies": []}

    def attempts(self, _execution_id: str, node_id: str) -> list[dict[str, Any]]:
        self.asked.append(f"attempts of {node_id}")
        first = {"attempt": 1, "worker": "w-1", "started_ms": 0, "duration_ms": 1500}
        lost = {"attempt": 2, "worker": None, "started_ms": None, "duration_ms": None}
        return [{**first, "error": "no \x1b[31mluck"}, {**lost, "error": None}]

    def explain(self, execution_id: str, node_id: str | None) -> dict[str, Any]:
        node = {"node_id": node_id, "state": "FAILED", "reasons": [], "traceback": None}
        node["attempts"] = self.attempts(execution_id, str(node_id))
        facts = {"execution_id": execution_id, "status": "FAILED", "summary": "it failed"}
        return {**facts, "nodes": [node], "more": 0, "traceback": None}

    def definition(self, _execution_id: str) -> dict[str, Any]:
        return {"name": "x", "dag": {"nodes": []}}


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> StubClient:
    stub = StubClient()

    @contextmanager
    def connected(_url: str | None) -> Any:
        yield stub

    monkeypatch.setattr(executions, "connected", connected)
    return stub


def test_get_shows_tracebacks_and_what_programs_wrote(client: StubClient) -> None:
    result = CliRunner().invoke(executions.get, [SOME_ID], catch_exceptions=False)

    assert result.exit_code == 0
    assert (
        "\nA:\n    Traceback (most recent call last):\n      File x\n    KeyError:" in result.output
    )
    assert "\nB:\n    stdout:\n    so far\n    stderr:\n    went \\x1b[31mwrong\n" in result.output
    assert client.asked == ["A", "B", "C"]


@pytest.mark.usefixtures("client")
def test_get_as_json_has_them_beside_the_nodes() -> None:
    result = CliRunner().invoke(executions.get, [SOME_ID, "-o", "json"], catch_exceptions=False)

    nodes = {one["node_id"]: one for one in json.loads(result.output)["node_list"]}
    assert nodes["A"]["traceback"] == TRACE
    assert nodes["B"]["output"] == WRITTEN
    assert "traceback" not in nodes["fine"]


ROWS = [
    ["NODE", "ATTEMPT", "WORKER", "STARTED", "TOOK", "ERROR"],
    ["A", "1", "w-1", "1.5s", "no \\x1b[31mluck"],
    ["A", "2", "-", "-", "-"],
]


def attempts_in(output: str) -> list[list[str]]:
    """The rows of the table of attempts, without the times of this machine's zone."""
    lines = output[output.index("NODE  ATTEMPT") :].split("\n\n")[0].splitlines()
    rows = [re.split(r"  +", line.strip()) for line in lines]
    return [[cell for cell in row if not cell.startswith("19")] for row in rows]


def test_get_lists_the_attempts_of_nodes_that_had_several(client: StubClient) -> None:
    client.last_attempt = 2
    result = CliRunner().invoke(executions.get, [SOME_ID], catch_exceptions=False)

    rows = attempts_in(result.output)
    assert rows[:3] == ROWS
    assert [row[0] for row in rows[1::2]] == ["A", "B", "C", "D"]

    listed = CliRunner().invoke(executions.get, [SOME_ID, "-o", "json"], catch_exceptions=False)
    nodes = {one["node_id"]: one for one in json.loads(listed.output)["node_list"]}
    assert [one["attempt"] for one in nodes["D"]["attempts"]] == [1, 2]
    assert "attempts" not in nodes["fine"]


def test_get_lists_no_attempts_of_a_node_that_has_waited_and_begun_once(
    client: StubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A wait for a place looked like a first attempt that had failed of nothing."""
    client.last_attempt = 2
    waited = {"attempt": 1, "worker": None, "started_ms": None, "duration_ms": None, "error": None}
    ran = {**waited, "attempt": 2, "worker": "w-1", "started_ms": 0, "duration_ms": 1}
    monkeypatch.setattr(StubClient, "attempts", lambda *_: [waited, ran])

    result = CliRunner().invoke(executions.get, [SOME_ID], catch_exceptions=False)

    assert result.exit_code == 0
    assert "STARTED" not in result.output


@pytest.mark.usefixtures("client")
def test_explain_lists_the_attempts_of_the_node_it_is_asked_about() -> None:
    result = CliRunner().invoke(executions.explain, [SOME_ID, "A"], catch_exceptions=False)

    assert attempts_in(result.output) == ROWS


def test_get_says_the_labels_as_they_are_asked_for(
    client: StubClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No command showed them."""
    said = client.get(SOME_ID) | {"labels": {"env": "prod", "team": "x"}}
    monkeypatch.setattr(client, "get", lambda _: said)

    result = CliRunner().invoke(executions.get, [SOME_ID], catch_exceptions=False)

    assert "\nlabels: env:prod, team:x\n" in result.output


@pytest.mark.parametrize(
    ("rendered", "title"),
    [
        ({"url": "http://x/7", "key": {"$secret": "name"}}, "config:"),
        (None, "config, as written: what it reads is not there"),
    ],
)
def test_get_of_a_node_shows_what_its_handler_got(
    client: StubClient, monkeypatch: pytest.MonkeyPatch, rendered: Any, title: str
) -> None:
    detail = {
        **dict.fromkeys(("error", "traceback", "output", "worker", "started_ms", "duration_ms")),
        "node_id": "A",
        "handler": "h",
        "state": "COMPLETED",
        "attempt": 2,
        "config": {"url": "http://x/{{ input.n }}"},
        "rendered_config": rendered,
        "attempts": client.attempts(SOME_ID, "A"),
    }
    monkeypatch.setattr(client, "node", lambda *_: detail)

    result = CliRunner().invoke(executions.get, [SOME_ID, "A"], catch_exceptions=False)

    assert result.output.startswith("node id: A\nhandler: h\nstate: COMPLETED\nattempt: 2\n")
    config = json.dumps(rendered or detail["config"], indent=2)
    block = "".join(f"    {line}\n" for line in config.splitlines())
    assert f"\n{title}\n{block}" in result.output
    assert attempts_in(result.output)[1:] == ROWS[1:]
    listed = CliRunner().invoke(executions.get, [SOME_ID, "A", "-o", "json"])
    assert json.loads(listed.output) == detail
