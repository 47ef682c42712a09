"""Limits and queues in a soak: who holds a place runs, nobody waits in vain, and never were more
calls under way than a limit says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

import redis as redis_py

from flowd.store.redis import keys
from flowd.workflow.ids import split_item
from flowd.workflow.states import ExecutionState, NodeState
from scripts.soaking.ledger import END, START, Note

# By name, the most at once; `lane` has places for each key.
LIMITS: Final = MappingProxyType({"soak": 4, "lane": 2})
QUEUES: Final = ("default", "low")
_LIVE: Final = ("RUNNING", "PAUSED", "CANCELLING")
_HOLDING: Final = (NodeState.QUEUED, NodeState.RUNNING)


def check_limits(redis: redis_py.Redis, executions: Mapping[str, Any]) -> Iterator[str]:
    """`executions` have `status` and `with_items`, the states of all that runs of them."""
    said = {name: text.split(" ")[0] for name, text in redis.hgetall(keys.LIMITS).items()}
    for place in redis.zrange(keys.PLACES, 0, -1):
        holders, waiters = (
            redis.zrange(keys.holders(place), 0, -1),
            redis.zrange(keys.waiters(place), 0, -1),
        )
        for member in holders:
            if _state(member, executions) not in _HOLDING:
                yield f"{member}: it holds {place} and does not run"
        for member in waiters:
            if _state(member, executions) != NodeState.WAITING:
                yield f"{member}: it waits for {place} no more"
        most = said.get(place.partition("/")[0], "-")
        if most.isdecimal() and len(holders) > int(most):
            yield f"{place}: {len(holders)} hold a place, and there are {most}"
        if waiters and (most == "-" or len(holders) < int(most)):
            yield f"{place}: a place is free, and {len(waiters)} wait"
    for execution_id, one in executions.items():
        if one.status not in _LIVE and (kept := redis.hkeys(keys.places(execution_id))):
            yield f"{execution_id}: it is {one.status}, and {kept[0]} holds or awaits a place"


def _state(member: str, executions: Mapping[str, Any]) -> str | None:
    execution_id, _, node_id = member.partition(" ")
    one = executions.get(execution_id)
    state: str | None = one.with_items.get(node_id) if one and one.status in _LIVE else None
    return state


def check_calls(
    executions: Mapping[str, Any], ledger: Sequence[Note], limits: Mapping[str, int] = LIMITS
) -> Iterator[str]:
    """That never more calls were under way than a limit says: those of the newest attempts of nodes
    that nobody cancelled, since a call whose node was taken away may run on."""
    newest: dict[tuple[str, str], int] = {}
    for note in ledger:
        newest[note.node] = max(note.attempt, newest.get(note.node, 0))
    begun: dict[tuple[str, str], float] = {}
    steps: dict[str, list[tuple[float, int]]] = defaultdict(list)
    for note in ledger:
        if note.attempt != newest[note.node]:
            continue
        if note.phase == START:
            begun[note.node] = note.at_s
        elif note.phase == END and note.node in begun:
            place = _place(executions.get(note.execution_id), note.node_id)
            if place is not None:
                steps[place] += [(begun.pop(note.node), 1), (note.at_s, -1)]
    for place, ends in steps.items():
        most = running = 0
        for _, step in sorted(ends):
            running += step
            most = max(most, running)
        if most > limits.get(place.partition("/")[0], most):
            yield f"{place}: {most} calls at once"


def _place(execution: Any, node_id: str) -> str | None:
    """None for a node without a limit, and of an execution that did not end by itself."""
    if execution is None or execution.status not in (
        ExecutionState.COMPLETED,
        ExecutionState.FAILED,
    ):
        return None
    limit = execution.written.get(split_item(node_id)[0], {}).get("limit")
    if not isinstance(limit, dict):
        return limit
    return f"{limit['name']}/{execution.definition['input']['lane']}"


def held_back(nodes: Collection[dict[str, Any]], chance: Any) -> None:
    """Some of these nodes take places, and some are in another queue."""
    for node in nodes:
        limit = chance.choice((None, "soak", {"name": "lane", "key": "{{ input.lane }}"}))
        if limit is not None:
            node["limit"] = limit
        if chance.random() < 0.3:
            node["queue"] = QUEUES[1]
