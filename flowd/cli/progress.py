"""How far executions are: as a list of them says it, and as nodes say it that wait for a child."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from flowd.client import Client
    from flowd.client.calls import Json

ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
# Of a list; each costs a call.
PROGRESS_MAX: Final = 50

Node = Mapping[str, Any]


def with_progress(client: Client, rows: Iterable[Json]) -> Iterator[Json]:
    """Executions, each with how many of its nodes have ended, where it has not; asked for the
    first ones."""
    left = PROGRESS_MAX
    for row in rows:
        progress = f"{row['nodes']:,}" if row["nodes"] else "-"
        if left > 0 and row["status"] in ("RUNNING", "PAUSED"):
            left -= 1
            progress = _of(client.get(row["execution_id"]))
        yield {**row, "progress": progress}


def with_children(client: Client, nodes: Iterable[Node]) -> Iterator[Node]:
    """Nodes, those that wait for a child with what that is and how far: `RUNNING 1/3`; asked for
    the first ones."""
    left = PROGRESS_MAX
    for node in nodes:
        if left > 0 and node.get("child") and node["state"] == "WAITING":
            left -= 1
            child = client.get(node["child"])
            yield {**node, "child_progress": f"{child['status']} {_of(child)}"}
        else:
            yield node


def count_ended(counts: Mapping[str, int]) -> int:
    """Of the nodes that are counted by their state."""
    return sum(counts.get(state, 0) for state in (*ENDED, "SKIPPED"))


def _of(summary: Json) -> str:
    counts = summary["counts"]
    return f"{count_ended(counts):,}/{sum(counts.values()):,}"
