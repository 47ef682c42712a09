"""Look after the items of nodes with `map`: each that has a place can still move, or is mended."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from flowd.store import Store
from flowd.workflow.ids import item_id
from flowd.workflow.states import NodeState

_MOVES = frozenset({NodeState.QUEUED, NodeState.RUNNING, NodeState.RETRYING, NodeState.WAITING})


class MapCheck(NamedTuple):
    """`lost` are items without an entry, with their states; `has_waker` is False where the node is
    to be woken, and `is_stuck` where no item is left that could.
    """

    lost: Mapping[str, NodeState]
    has_waker: bool
    is_stuck: bool


async def check_map(
    store: Store, execution_id: str, node_id: str, dated: int, has_entry: Callable[[str], bool]
) -> MapCheck:
    """`dated` is how many of its items stand among the dates. Raises CorruptExecution."""
    standing = await store.nodes.maps.standing(execution_id, node_id)
    if standing is None or (standing.is_over and not standing.stopped):
        return MapCheck({}, has_waker=False, is_stuck=False)
    places = await store.nodes.maps.places(execution_id, node_id)
    states = dict(places.open)
    if standing.stopped:
        lost = {
            item: state
            for index, state in states.items()
            if state is not None and not has_entry(item := item_id(node_id, index))
        }
        return MapCheck(lost, has_waker=bool(states), is_stuck=False)
    if standing.n > standing.ended + len(places.open) + places.waiting + dated:
        # One of those in a pause has lost its date, or moved while this was read.
        found = await store.nodes.maps.states(execution_id, node_id, range(standing.n))
        states |= {str(index): state for index, state in enumerate(found)}
    lost = {
        item: state
        for index, state in states.items()
        if state in _MOVES and not has_entry(item := item_id(node_id, index))
    }
    is_alive = bool(places.open or places.waiting or dated or lost)
    return MapCheck(lost, has_waker=True, is_stuck=not is_alive)
