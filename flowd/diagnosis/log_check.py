"""Whether the logs and the earlier attempts that are kept are those of their executions."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flowd.store.inspection import Inspection, LogKey, NodeKey
from flowd.store.logs import ATTEMPTS_KEPT
from flowd.workflow.states import NodeState


@dataclass(slots=True)
class LogsView:
    """`kept` has every log there is, `listed` those that their executions list; `earlier` the
    numbers of the attempts before the newest that are kept of each node, `newest` that of this;
    `existing` are the executions that have a status."""

    kept: set[LogKey] = field(default_factory=set)
    listed: set[LogKey] = field(default_factory=set)
    earlier: dict[NodeKey, list[int]] = field(default_factory=dict)
    newest: dict[NodeKey, int] = field(default_factory=dict)
    existing: set[str] = field(default_factory=set)

    async def read(self, inspection: Inspection, execution_ids: Sequence[str]) -> None:
        self.listed |= await inspection.listed_logs(execution_ids)
        earlier = await inspection.earlier_attempts(execution_ids)
        self.earlier |= earlier
        self.newest |= await inspection.newest_attempts(list(earlier))
        self.existing |= await inspection.existing(execution_ids)


def log_mismatches(logs: LogsView, node_states: Mapping[NodeKey, str | None]) -> Iterator[str]:
    for one in sorted(logs.kept ^ logs.listed):
        execution_id, node_id, attempt = one
        # Those of one that is being deleted go one after the other.
        if execution_id in logs.existing:
            how = "is not listed" if one in logs.kept else "is listed and gone"
            yield f"execution {execution_id}: the log of node {node_id}, attempt {attempt}, {how}"
    for (execution_id, node_id), numbers in sorted(logs.earlier.items()):
        named = f"execution {execution_id}: node {node_id}"
        if len(numbers) > ATTEMPTS_KEPT:
            yield f"{named} keeps {len(numbers)} attempts before its newest"
        newest = logs.newest.get((execution_id, node_id))
        # Of one that runs the newest is written down late.
        is_over = node_states.get((execution_id, node_id)) == NodeState.COMPLETED
        if is_over and newest is not None and max(numbers) >= newest:
            yield f"{named} keeps attempt {max(numbers)}, and its newest is {newest}"
