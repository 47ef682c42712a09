"""What has to hold of nodes that wait: one record, one waker that exists, decided once."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import redis as redis_py

from flowd.store.redis import keys
from flowd.store.waits import Decision, WaitRecord, parse_decision, parse_wait
from flowd.workflow.states import NodeState

# Who wakes a node, and whether that takes a date.
_WAKERS = {"date": True, "moment": True, "signal": False, "items": False, "child": False}

Node = tuple[str, str]


def dated_nodes(redis: redis_py.Redis) -> set[Node]:
    """All that are to run again by themselves, at some time."""
    members = [one for key in (keys.RETRIES, keys.ALARMS) for one in redis.zrange(key, 0, -1)]
    pairs = (one.partition(" ") for one in members)
    return {(execution_id, node_id) for execution_id, _, node_id in pairs}


def check_waits(
    redis: redis_py.Redis, execution_id: str, states: Mapping[str, str | None], dated: set[Node]
) -> Iterator[str]:
    """WAITING is one record of one waker that exists and has not decided, in a live execution."""
    records = redis.hgetall(keys.waits(execution_id))
    decisions = redis.hgetall(keys.decisions(execution_id))
    for node_id, text in records.items():
        if states.get(node_id) != NodeState.WAITING:
            yield f"{execution_id} {node_id}: it is {states.get(node_id)} and waits: {text!r}"
    for node_id, state in states.items():
        if state == NodeState.WAITING:
            wait = parse_wait(records.get(node_id))
            decision = parse_decision(decisions.get(node_id))
            if found := _lacks(wait, decision, is_dated=(execution_id, node_id) in dated):
                yield f"{execution_id} {node_id}: it is WAITING {found}"


def _lacks(wait: WaitRecord | None, decision: Decision | None, *, is_dated: bool) -> str:
    if wait is None or wait.waker not in _WAKERS:
        return "and nothing that wakes it is named"
    if _WAKERS[wait.waker] and wait.due_ms is None:
        return "for a date and has none"
    if (wait.due_ms is not None) != is_dated:
        return "and its date and its record say different things"
    if decision is not None and decision.number >= wait.number:
        return f"and was decided: {decision.kind}"
    return ""
