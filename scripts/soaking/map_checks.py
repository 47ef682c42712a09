"""What has to hold of nodes with `map`: each item has one place, and each end is counted once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import redis as redis_py

from flowd.store.redis import keys
from flowd.workflow.states import NodeState

# Of an item that has a place; what waits is WAITING, what is kept under a pause PENDING.
_PLACED = frozenset(
    {NodeState.QUEUED, NodeState.RUNNING, NodeState.WAITING, NodeState.PENDING, None}
)


@dataclass(frozen=True)
class Items:
    """The items of one node: a state each, None for what never had a place, and its counters."""

    node_id: str
    counters: Mapping[str, str]
    todo: Sequence[str]
    open: Collection[str]
    states: Mapping[int, str | None]

    @property
    def named(self) -> dict[str, str | None]:
        """The states of those that have one, by id."""
        return {f"{self.node_id}.{one}": state for one, state in self.states.items() if state}


def read_items(redis: redis_py.Redis, execution_id: str, node_id: str) -> Items:
    with redis.pipeline(transaction=False) as pipe:
        pipe.hgetall(keys.map_of(execution_id, node_id))
        pipe.lrange(keys.map_todo(execution_id, node_id), 0, -1)
        pipe.smembers(keys.map_open(execution_id, node_id))
        counters, todo, places = pipe.execute()
    indexes = range(int(counters.get("n", 0)))
    names = [keys.node(execution_id, f"{node_id}.{one}") for one in indexes]
    states = redis.mget(names) if names else []
    return Items(node_id, counters, todo, places, dict(zip(indexes, states, strict=True)))


def check_items(named: str, items: Items, state: str | None, *, is_live: bool) -> Iterator[str]:
    """Sentences; `named` is the node in them, `state` its own."""
    if not items.counters:
        if items.open:
            yield f"{named}: it has items and no counters"
        return
    counts = Counter(items.states.values())
    n, ended = int(items.counters["n"]), int(items.counters["ended"])
    done = counts[NodeState.COMPLETED] + counts[NodeState.FAILED]
    if ended != done:
        yield f"{named}: {done} items have ended and it counts {ended}"
    if int(items.counters["failed"]) != counts[NodeState.FAILED]:
        counted = items.counters["failed"]
        yield f"{named}: {counts[NodeState.FAILED]} items have failed and it counts {counted}"
    is_stopped = "stopped" in items.counters
    if is_live and is_stopped and state == NodeState.WAITING and not items.open:
        yield f"{named}: it was stopped, nothing of it runs any more, and it waits for that"
    if not is_live or is_stopped or state not in (NodeState.WAITING, NodeState.RUNNING):
        if state in (NodeState.COMPLETED, NodeState.FAILED):
            yield from _check_over(named, items, state, ended == n)
        return
    dated = sum(
        state == NodeState.WAITING and str(index) not in items.open
        for index, state in items.states.items()
    )
    places = ended + len(items.open) + len(items.todo) + counts[NodeState.RETRYING] + dated
    if places != n:
        yield f"{named}: of {n} items {places} have ended, a place, or wait for one"
    if len(items.open) > int(items.counters["window"]):
        yield f"{named}: {len(items.open)} items are open, more than its window"
    for index in items.open:
        if items.states[int(index)] not in _PLACED:
            yield f"{named}.{index}: it has a place and is {items.states[int(index)]}"
    if ended == n and state == NodeState.WAITING:
        yield f"{named}: all of its items have ended, and it waits for them"


def _check_over(named: str, items: Items, state: str, all_ended: bool) -> Iterator[str]:
    """Of a node that has ended: nothing of it is left to run."""
    if state == NodeState.COMPLETED and not all_ended:
        yield f"{named}: it is COMPLETED before its items had ended"
    if items.todo or items.open:
        yield f"{named}: it is {state}, and items of it are open or wait"
    for item, its_state in items.named.items():
        if its_state not in (NodeState.COMPLETED, NodeState.FAILED, NodeState.CANCELLED):
            yield f"{named}: it is {state}, and {item} is {its_state}"
