"""Look at the items of a node with `map`: those that have run, and those that never had a place."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from flowd.store import Store
from flowd.workflow.ids import split_item
from flowd.workflow.states import NodeState
from flowd.workflow.templating import INDEX, ITEM


@dataclass(frozen=True, slots=True)
class Item:
    """`states` has the one of its id; `given` is what its config reads."""

    states: dict[str, NodeState | None]
    given: Mapping[str, Any]


async def find_item(store: Store, execution_id: str, node_id: str) -> Item | None:
    """None where the list has no such item, or is not stored yet."""
    above, index = split_item(node_id)
    standing = await store.nodes.maps.standing(execution_id, above)
    if standing is None or len(index) > 9 or int(index) >= standing.n or index != str(int(index)):
        return None
    states = await item_states(store, execution_id, above, [int(index)])
    (text,) = await store.nodes.maps.texts(execution_id, above, [int(index)])
    given = {ITEM: orjson.loads(text), INDEX: int(index)}
    return Item({node_id: states[int(index)]}, given)


async def item_states(
    store: Store, execution_id: str, node_id: str, indexes: Sequence[int]
) -> dict[int, NodeState]:
    """By index. What never had a place is PENDING while the node waits, and CANCELLED after."""
    (above,) = (await store.nodes.states(execution_id, [node_id])).values()
    is_over = above is None or above.is_terminal
    missing = NodeState.CANCELLED if is_over else NodeState.PENDING
    states = await store.nodes.maps.states(execution_id, node_id, indexes)
    return {index: state or missing for index, state in zip(indexes, states, strict=True)}
