"""What has to hold of executions and their children: one for each wait of a node, no orphan."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Protocol

import redis as redis_py

from flowd.store.kin import Kin, parse_kin
from flowd.store.redis import keys
from flowd.store.waits import parse_wait
from flowd.workflow.children import CHILD
from flowd.workflow.ids import child_id
from flowd.workflow.states import CANCELLING, ExecutionState, NodeState

_LIVE = (ExecutionState.RUNNING, ExecutionState.PAUSED, CANCELLING)


class Read(Protocol):
    """What the checker has read of an execution."""

    id: str
    status: str | None
    run: Mapping[str, str]

    @property
    def with_items(self) -> dict[str, str | None]: ...


def check_children(
    redis: redis_py.Redis, executions: Mapping[str, Read], excused: Collection[str]
) -> Iterator[str]:
    """Sentences; `excused` were deleted on purpose, or damaged."""
    kins = {one.id: kin for one in executions.values() if (kin := parse_kin(one.run.get("parent")))}
    trees = Counter(kin.root_id for kin in kins.values())
    for execution_id, kin in kins.items():
        parent = executions.get(kin.parent_id)
        if kin.parent_id in excused:
            continue
        if execution_id != child_id(kin.parent_id, kin.node_id, kin.number):
            yield f"{execution_id}: it has not the id of the child of {kin.parent_id} {kin.node_id}"
        if parent is None or parent.status is None:
            yield f"{execution_id}: its parent {kin.parent_id} is gone"
        else:
            yield from _check_child(executions[execution_id], kin, parent)
    for one in executions.values():
        listed = redis.hgetall(keys.children(one.id))
        if listed or "children" in one.run:
            yield from _check_parent(redis, one, listed, executions)
        size, counted = 1 + trees[one.id], one.run.get("tree")
        if counted is not None and counted != str(size):
            yield f"{one.id}: its tree has {size} executions, and it counts {counted}"


def _check_child(child: Read, kin: Kin, parent: Read) -> Iterator[str]:
    is_cancelled = child.status == CANCELLING or child.run.get("ends_as") == "CANCELLED"
    state = parent.with_items.get(kin.node_id)
    if child.status not in _LIVE or is_cancelled:
        return
    if parent.status not in _LIVE:
        yield f"{child.id}: it is {child.status}, and its parent {parent.status}"
    elif state is None or NodeState(state).is_terminal:
        yield f"{child.id}: it is {child.status}, and the node that waits for it {state}"


def _check_parent(
    redis: redis_py.Redis, parent: Read, listed: Mapping[str, str], executions: Mapping[str, Read]
) -> Iterator[str]:
    statuses = {one: executions[one].status if one in executions else None for one in listed}
    live = sum(status in _LIVE for status in statuses.values())
    if int(parent.run.get("children", 0)) != live:
        counted = parent.run.get("children")
        yield f"{parent.id}: {live} of its children have not ended, and it counts {counted}"
    for place, count in Counter(listed.values()).items():
        if count > 1:
            yield f"{parent.id}: it has {count} children for {place}"
    for node_id, text in redis.hgetall(keys.waits(parent.id)).items():
        wait = parse_wait(text)
        if wait and wait.waker == CHILD and statuses.get(wait.text) not in _LIVE:
            yield f"{parent.id} {node_id}: it waits for {wait.text}: {statuses.get(wait.text)}"
    for node_id, state in parent.with_items.items():
        places = [one for one, place in listed.items() if place.rpartition(" ")[0] == node_id]
        ended_well = any(statuses[one] == ExecutionState.COMPLETED for one in places)
        if places and state == NodeState.COMPLETED and not ended_well:
            yield f"{parent.id} {node_id}: it is COMPLETED, and no child of it is"
