"""Whether the lists by state and by name hold every execution that exists, and no other."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from flowd.store.redis import keys
from flowd.store.sets import parse_member
from flowd.workflow.ids import is_name
from flowd.workflow.states import ExecutionState


def check_lists(redis: Any, executions: Mapping[str, Any]) -> Iterator[str]:
    live = [one for one in executions.values() if one.status]
    named = {f"{one.run['name']}\0{one.id}" for one in live if "name" in one.run}
    yield from _compared(redis, keys.NAMES, named, executions)
    for state in ExecutionState:
        if state is not ExecutionState.RUNNING:
            wanted = {one.id for one in live if one.status == state}
            yield from _compared(redis, keys.by_status(state), wanted, executions)


def check_sets(redis: Any) -> Iterator[str]:
    """That whatever belongs to a set is something that can be applied."""
    for member, owner in redis.hgetall(keys.SETS).items():
        if parse_member(member) is None or not is_name(owner):
            yield f"{member!r} belongs to the set {owner!r}"


def _compared(
    redis: Any, key: str, wanted: set[str], executions: Mapping[str, Any]
) -> Iterator[str]:
    listed = set(redis.zrange(key, 0, -1)) if redis.type(key) == "zset" else set()
    for member in sorted(wanted - listed):
        yield f"{member[-24:]}: is missing in {key}"
    for member in sorted(listed - wanted):
        # Others were damaged on purpose, or made meanwhile.
        if member[-24:] in executions:
            yield f"{member[-24:]}: stands in {key} and should not"
