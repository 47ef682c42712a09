"""The states of executions and nodes, and the moves between them that are legal."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class ExecutionState(StrEnum):
    PENDING = "PENDING"
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"
    COMPLETED = "COMPLETED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        return not EXECUTION_TRANSITIONS[self]


# What stands in Redis while the nodes of an execution are cancelled and its `finally` is still to
# come. Nothing of it opens or starts then; to everybody outside it is RUNNING.
CANCELLING: Final = "CANCELLING"


def parse_status(text: str) -> ExecutionState:
    """The state an execution is in, by its key. Raises ValueError."""
    return ExecutionState.RUNNING if text == CANCELLING else ExecutionState(text)


class NodeState(StrEnum):
    PENDING = "PENDING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    RETRYING = "RETRYING"
    WAITING = "WAITING"
    COMPLETED = "COMPLETED"
    SKIPPED = "SKIPPED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"

    @property
    def is_terminal(self) -> bool:
        return not NODE_TRANSITIONS[self]


_E, _N = ExecutionState, NodeState
EXECUTION_TRANSITIONS: Mapping[ExecutionState, frozenset[ExecutionState]] = {
    # A child that waits for a place starts as its parent is, which may be paused.
    _E.PENDING: frozenset({_E.RUNNING, _E.PAUSED, _E.CANCELLED}),
    _E.RUNNING: frozenset({_E.PAUSED, _E.COMPLETED, _E.FAILED, _E.CANCELLED}),
    # What runs while an execution is paused goes on, and may be the last of it.
    _E.PAUSED: frozenset({_E.RUNNING, _E.COMPLETED, _E.FAILED, _E.CANCELLED}),
    _E.COMPLETED: frozenset(),
    _E.FAILED: frozenset(),
    _E.CANCELLED: frozenset(),
}

# A node fails without having been queued when one of its dependencies failed, and without having
# run when it was given up after it had killed its workers. A released node goes back to QUEUED,
# one that was queued when its execution was paused back to PENDING.
NODE_TRANSITIONS: Mapping[NodeState, frozenset[NodeState]] = {
    _N.PENDING: frozenset({_N.QUEUED, _N.FAILED, _N.CANCELLED}),
    _N.QUEUED: frozenset(
        {_N.RUNNING, _N.PENDING, _N.RETRYING, _N.WAITING, _N.SKIPPED, _N.FAILED, _N.CANCELLED}
    ),
    _N.RUNNING: frozenset(
        {_N.COMPLETED, _N.FAILED, _N.QUEUED, _N.RETRYING, _N.WAITING, _N.CANCELLED}
    ),
    _N.RETRYING: frozenset({_N.QUEUED, _N.FAILED, _N.CANCELLED}),
    _N.WAITING: frozenset({_N.QUEUED, _N.PENDING, _N.CANCELLED}),
    _N.COMPLETED: frozenset(),
    _N.SKIPPED: frozenset(),
    _N.FAILED: frozenset(),
    _N.CANCELLED: frozenset(),
}
