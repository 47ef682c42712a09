"""Look at the items of a node with `map`, page by page."""

from __future__ import annotations

from typing import Any

import orjson
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.cursor import read_cursor, write_cursor
from flowd.api.contract.model import Model
from flowd.api.contract.query import read_query
from flowd.api.contract.route import Endpoint
from flowd.api.contract.whole import whole
from flowd.api.http.responses import json_response, requested_execution_id
from flowd.api.shared import shared_of
from flowd.errors import NoMap, UnknownNode
from flowd.orchestrator.items import item_states
from flowd.store import Store
from flowd.store.executions import NODES_PER_CALL_MAX, slices
from flowd.workflow.ids import item_id
from flowd.workflow.states import NodeState

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
# Of the items and outputs of one page, but for the first of them.
PAGE_BYTES_MAX = 4 * 1024 * 1024


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeItem(_Body):
    """`item` is what it runs for; `output` and what else is not known yet is null. `began_ms` and
    `duration_ms` are those of a node."""

    index: int
    node_id: str
    item: Any
    state: NodeState
    attempt: int | None
    worker: str | None
    started_ms: int | None
    began_ms: int | None
    duration_ms: int | None
    error: str | None
    output: Any


class ItemPage(_Body):
    """`count` is that of the whole list, 0 while it is not stored."""

    execution_id: str
    node_id: str
    count: int
    items: list[NodeItem]
    next_cursor: str | None


class ItemsQuery(Model):
    state: list[NodeState] = Field(
        default_factory=list, description="only in this state; separate several with commas"
    )
    limit: int = Field(default=LIMIT_DEFAULT, ge=1, le=LIMIT_MAX)
    cursor: str | None = Field(default=None, description="`next_cursor` of the previous page")


@whole
async def list_items(request: Request) -> Response:
    """List the items of a node with `map` in the order of its list, with their outputs.

    A page ends before its limit where items and outputs would have more than 4 MiB.
    """
    execution_id = requested_execution_id(request)
    node_id = str(request.path_params["node_id"])
    query = read_query(request, ItemsQuery)
    store = shared_of(request.app).store
    await store.executions.execution_status(execution_id)
    plan = await shared_of(request.app).plans.load(execution_id, "")
    node = plan.nodes.get(node_id)
    if node is None:
        raise UnknownNode(execution_id, node_id[:128])
    if node.map is None:
        raise NoMap(execution_id, node_id)
    standing = await store.nodes.maps.standing(execution_id, node_id)
    n = standing.n if standing else 0
    after = read_cursor(query.cursor, lambda text: _is_index(text, n))
    begin = int(after) + 1 if after is not None else 0
    states = await _page(store, execution_id, node_id, range(begin, n), query)
    items, is_whole = await _items(store, execution_id, node_id, states, query.limit)
    more = None if is_whole else str(items[-1].index)
    return json_response(
        ItemPage.model_construct(
            execution_id=execution_id,
            node_id=node_id,
            count=n,
            items=items,
            next_cursor=write_cursor(more),
        )
    )


def _is_index(text: str, n: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) < 10 and int(text) < n


async def _page(
    store: Store, execution_id: str, node_id: str, indexes: range, query: ItemsQuery
) -> dict[int, NodeState]:
    """The first of these items that pass, and one more where there is one."""
    accepted, found = set(query.state), dict[int, NodeState]()
    for some in slices(indexes, NODES_PER_CALL_MAX if accepted else query.limit + 1):
        for index, state in (await item_states(store, execution_id, node_id, some)).items():
            if not accepted or state in accepted:
                found[index] = state
            if len(found) > query.limit:
                return found
    return found


async def _items(
    store: Store, execution_id: str, node_id: str, states: dict[int, NodeState], limit: int
) -> tuple[list[NodeItem], bool]:
    """As many as one page bears, and whether those are all."""
    indexes = list(states)[:limit]
    sizes = await store.nodes.maps.sizes(execution_id, node_id, indexes)
    total = taken = 0
    for size in sizes:
        total += size
        if taken and total > PAGE_BYTES_MAX:
            break
        taken += 1
    indexes = indexes[:taken]
    rows = await store.nodes.rows(
        execution_id, {item_id(node_id, one): states[one] for one in indexes}
    )
    texts = await store.nodes.maps.texts(execution_id, node_id, indexes)
    outputs = await store.nodes.outputs(execution_id, [row.node_id for row in rows])
    items = [
        NodeItem.model_construct(
            index=index,
            node_id=row.node_id,
            item=orjson.Fragment(text),
            state=states[index],
            attempt=row.record.attempt,
            worker=row.record.worker,
            started_ms=row.record.started_ms,
            began_ms=row.began_ms,
            duration_ms=row.took_ms,
            error=row.error,
            output=outputs.get(row.node_id) if row.state is NodeState.COMPLETED else None,
        )
        for index, row, text in zip(indexes, rows, texts, strict=True)
    ]
    return items, taken == len(states)


_PROBLEMS = ("unknown_execution", "corrupt_execution", "store_unavailable")

ROUTES = [
    Endpoint(
        "GET",
        "/workflows/{execution_id}/nodes/{node_id}/items",
        list_items,
        scope="read",
        answers={200: ItemPage},
        problems=(*_PROBLEMS, "unknown_node", "no_map", "invalid_request"),
        query=ItemsQuery,
    ),
]
