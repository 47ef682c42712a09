"""Which queue each node of a definition is in, and what a node is called there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from flowd.workflow.ids import DEFAULT_QUEUE, split_item


class QueuePlan(NamedTuple):
    """Where the nodes of a definition are queued, and those elsewhere."""

    own: str = DEFAULT_QUEUE
    others: Mapping[str, str] = MappingProxyType({})

    @property
    def names(self) -> list[str]:
        """All but the default one."""
        return sorted({self.own, *self.others.values()} - {DEFAULT_QUEUE})

    def of(self, node_id: str) -> str:
        """That of a node, or of an item of one."""
        return self.others.get(split_item(node_id)[0], self.own)

    def each(self, node_ids: Iterable[str]) -> dict[str, str]:
        """That of each of these."""
        return {node_id: self.of(node_id) for node_id in node_ids}

    def called(self, node_id: str) -> str:
        """The full name of a node: its id in the default queue, `queue/id` in another."""
        queue = self.others.get(node_id, self.own)
        return node_id if queue == DEFAULT_QUEUE else f"{queue}/{node_id}"


NO_QUEUES = QueuePlan()


def plan_queues(document: Mapping[str, Any], written: Iterable[Mapping[str, Any]]) -> QueuePlan:
    """Raises TypeError where one has no form."""
    own = _said(document, DEFAULT_QUEUE)
    others = {node["id"]: queue for node in written if (queue := _said(node, own)) != own}
    return QueuePlan(own, others) if others or own != DEFAULT_QUEUE else NO_QUEUES


def queues_in(document: bytes) -> set[str]:
    """The queues that a definition names, whatever else is wrong with it."""
    try:
        written = orjson.loads(document)
        dag = written["dag"]
        said = [written, *dag["nodes"], *dag.get("finally", ())]
        return {one["queue"] for one in said if isinstance(one.get("queue"), str)}
    except (ValueError, TypeError, KeyError, AttributeError):
        return set()


def bare(called: str) -> str:
    """The id of a node, of its full name."""
    return called.rpartition("/")[2]


def _said(said: Mapping[str, Any], default: str) -> str:
    queue = said.get("queue", default)
    if not isinstance(queue, str):
        raise TypeError("a queue has a name")
    return queue
