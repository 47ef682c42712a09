"""`flowd get` shows what failed nodes left beside their errors."""

from __future__ import annotations

import json
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
            | {"attempt": states.get(name, ("FAILED", 1))[1]}
            for name in names
        ]

    def node(self, _execution_id: str, node_id: str) -> dict[str, Any]:
        self.asked.append(node_id)
        traceback, output = {"A": (TRACE, None), "B": (None, WRITTEN)}.get(node_id, (None, None))
        return {"node_id": node_id, "traceback": traceback, "output": output, "dependencies": []}

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
