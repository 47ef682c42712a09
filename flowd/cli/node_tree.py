"""A DAG as people read it: in an order in which it runs, and as a tree."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from graphlib import TopologicalSorter
from typing import Any

Nodes = Sequence[Mapping[str, Any]]


def run_order(nodes: Nodes) -> list[str]:
    """Ids of nodes as a definition has them, each behind all it depends on."""
    return list(TopologicalSorter({one["id"]: one["dependencies"] for one in nodes}).static_order())


def parents_of(nodes: Nodes) -> dict[str, str | None]:
    """Where each node hangs in a tree, in `run_order`: under the dependency furthest from the
    roots, which is likely the last it waits for; None for a root."""
    dependencies = {one["id"]: one["dependencies"] for one in nodes}
    depths: dict[str, int] = {}
    parents: dict[str, str | None] = {}
    for node_id in run_order(nodes):
        above = dependencies[node_id]
        parents[node_id] = max(above, key=lambda one: depths[one]) if above else None
        depths[node_id] = 1 + max((depths[one] for one in above), default=0)
    return parents
