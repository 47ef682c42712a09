"""The states of executions and nodes, and the moves between them that are legal."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum


class ExecutionState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"

    @property
    def is_terminal(self) -> bool:
        return not EXECUTION_TRANSITIONS[self]


class NodeState(StrEnum):
    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"

    @property
    def is_terminal(self) -> bool:
        return not NODE_TRANSITIONS[self]


EXECUTION_TRANSITIONS: Mapping[ExecutionState, frozenset[ExecutionState]] = {
    ExecutionState.PENDING: frozenset({ExecutionState.RUNNING}),
    ExecutionState.RUNNING: frozenset({ExecutionState.COMPLETED, ExecutionState.FAILED}),
    ExecutionState.COMPLETED: frozenset(),
    ExecutionState.FAILED: frozenset(),
}

# A node fails without having been queued when one of its dependencies failed, and without having
# run when it was given up after it had killed its workers. A released node goes back to QUEUED.
NODE_TRANSITIONS: Mapping[NodeState, frozenset[NodeState]] = {
    NodeState.PENDING: frozenset({NodeState.QUEUED, NodeState.FAILED}),
    NodeState.QUEUED: frozenset({NodeState.RUNNING, NodeState.FAILED}),
    NodeState.RUNNING: frozenset({NodeState.COMPLETED, NodeState.FAILED, NodeState.QUEUED}),
    NodeState.COMPLETED: frozenset(),
    NodeState.FAILED: frozenset(),
}
