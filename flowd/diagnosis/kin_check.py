"""Whether children run for somebody: their parent lives, and a node of it waits for them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from flowd.store.inspection import NodeKey
from flowd.store.kin import Kin
from flowd.workflow.states import CANCELLING, ExecutionState, NodeState

_RUNS: Final = frozenset({ExecutionState.RUNNING, ExecutionState.PAUSED})
_NODE_ENDED: Final = frozenset(one for one in NodeState if one.is_terminal)


def orphans(
    kins: Mapping[str, Kin],
    statuses: Mapping[str, str | None],
    node_states: Mapping[NodeKey, str | None],
) -> Iterator[str]:
    for execution_id, kin in sorted(kins.items()):
        if statuses.get(execution_id) not in _RUNS:
            continue
        status = statuses.get(kin.parent_id)
        state = node_states.get((kin.parent_id, kin.node_id))
        if status not in _RUNS | {CANCELLING}:
            said = f"is {status}" if status else "has no status"
            yield f"execution {execution_id} runs, and its parent {kin.parent_id} {said}"
        elif state in _NODE_ENDED:
            yield f"execution {execution_id} runs, and node {kin.node_id} of its parent is {state}"
