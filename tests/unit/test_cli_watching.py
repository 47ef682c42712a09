"""What is drawn of an execution while it runs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from rich.console import Console

from flowd.cli.watching import SHOWN_MAX, _Picture

PARENT, CHILD = "0a" * 12, "0b" * 12
HEAD = {"name": "x", "cancelling": False}


class Client:
    """Of a flowd that runs a parent of so many nodes, the first of which waits for a child."""

    def __init__(self, *states: str) -> None:
        self._states = states
        self.asked: list[str] = []

    def get(self, execution_id: str) -> dict[str, Any]:
        self.asked.append(execution_id)
        counts = {"RUNNING": 1, "COMPLETED": 1, "SKIPPED": 1}
        if execution_id == PARENT:
            counts = {one: self._states.count(one) for one in self._states}
        return {**HEAD, "status": "RUNNING", "counts": counts}

    def definition(self, _execution_id: str) -> dict[str, Any]:
        return {"dag": {"nodes": [{"id": one["node_id"], "dependencies": []} for one in self._all]}}

    def nodes(self, _execution_id: str, state: str = "", **_: int) -> Iterator[Mapping[str, Any]]:
        return (one for one in self._all if not state or one["state"] == state)

    @property
    def _all(self) -> list[dict[str, Any]]:
        said = {"handler": "workflow", "error": None, "duration_ms": None, "child": CHILD}
        return [
            {**said, "node_id": f"N{number}", "state": state}
            for number, state in enumerate(self._states)
        ]


def drawn(client: Any) -> str:
    console = Console(width=120, no_color=True)
    with console.capture() as seen:
        console.print(_Picture(client, PARENT).draw("RUNNING"))
    return seen.get()


@pytest.mark.parametrize("more", [0, SHOWN_MAX])
def test_a_node_that_waits_for_a_child_says_how_far_that_is(more) -> None:
    seen = drawn(Client("WAITING", *["PENDING"] * more))
    assert f"N0 WAITING workflow child {CHILD} RUNNING 2/3\n" in seen


def test_a_child_that_has_ended_is_named_and_not_asked_for() -> None:
    client = Client("COMPLETED")
    assert f"N0 COMPLETED workflow child {CHILD}\n" in drawn(client)
    assert client.asked == [PARENT]
