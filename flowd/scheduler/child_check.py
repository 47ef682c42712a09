"""Look after the children of an execution: each is waited for, and wakes whoever waits for it."""

from __future__ import annotations

from typing import NamedTuple

from flowd.store import Store
from flowd.store.children import Child
from flowd.workflow.states import NodeState


class ChildCheck(NamedTuple):
    """`live` are the children that have not ended, `lost` the nodes that still wait for one that
    has; `has_orphans` where one runs that nobody waits for.
    """

    live: frozenset[str]
    lost: frozenset[str]
    has_orphans: bool


NO_CHILDREN = ChildCheck(frozenset(), frozenset(), has_orphans=False)


async def check_children(store: Store, execution_id: str) -> ChildCheck:
    """Raises CorruptExecution."""
    live: set[str] = set()
    lost: set[str] = set()
    has_orphans = False
    async for children in store.children.pages(execution_id):
        live |= {one.execution_id for one in children if one.is_live}
        has_orphans = has_orphans or any(one.is_live and one.is_orphan for one in children)
        lost |= await _waiting_in_vain(store, execution_id, children)
    return ChildCheck(frozenset(live), frozenset(lost), has_orphans)


async def _waiting_in_vain(store: Store, execution_id: str, children: list[Child]) -> set[str]:
    ended = {
        one.node_id: one.execution_id
        for one in children
        if not one.is_live and one.node_state == NodeState.WAITING
    }
    records = await store.tasks.waits.records(execution_id, list(ended))
    return {
        node_id
        for node_id, record in records.items()
        if record is not None and record.text == ended[node_id]
    }
