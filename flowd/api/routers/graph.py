"""The graph of an execution, which never changes, and the states of its nodes, which do: small
enough to be asked for again and again."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from typing import Final

import orjson
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.model import Model
from flowd.api.contract.route import Endpoint
from flowd.api.contract.whole import whole
from flowd.api.http.responses import json_response, requested_execution_id
from flowd.api.routers.listing import CORRUPT
from flowd.api.shared import shared_of
from flowd.store import Store
from flowd.workflow.graph import Plan, PlannedNode
from flowd.workflow.ids import WORKFLOW
from flowd.workflow.signals import SIGNAL
from flowd.workflow.states import ExecutionState, NodeState

# Of more maps the items are not counted.
MAPS_COUNTED_MAX: Final = 100
UPSTREAM: Final = "U"
LETTERS: Final[Mapping[str, str]] = {
    "P": NodeState.PENDING,
    "Q": NodeState.QUEUED,
    "R": NodeState.RUNNING,
    "T": NodeState.RETRYING,
    "W": NodeState.WAITING,
    "C": NodeState.COMPLETED,
    "S": NodeState.SKIPPED,
    "F": NodeState.FAILED,
    UPSTREAM: NodeState.FAILED,
    "X": NodeState.CANCELLED,
    "?": CORRUPT,
}
_LETTER_OF: Final = {state: letter for letter, state in LETTERS.items() if letter != UPSTREAM}
_UNTOUCHED: Final = frozenset({NodeState.PENDING, NodeState.QUEUED, NodeState.SKIPPED, None})


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Graph(_Body):
    """Its nodes in columns, in the order of the definition, those of `finally` last. A node is
    named by its index in `ids`, a handler by that in `handlers`; of a node with `map` it is that of
    its items. The other lists name the nodes that have what they say.
    """

    execution_id: str
    name: str
    plan: str
    nodes: int
    ids: list[str]
    handlers: list[str]
    handler: list[int]
    dependencies: list[list[int]]
    maps: list[int]
    finally_: list[int] = Field(serialization_alias="finally")
    when: list[int]
    allow_failure: list[int]
    signals: list[int]
    workflows: list[int]


class NodeStates(_Body):
    """`states` has one letter for each node of the graph, in its order; `letters` says what each
    means. `U` is a node that is FAILED without having run, as something above it failed. `items` is
    how many items of a node with `map` are in each state, by the index of the node, once it has
    begun.
    """

    execution_id: str
    status: ExecutionState
    cancelling: bool
    plan: str
    states: str
    letters: dict[str, str]
    counts: dict[str, int]
    items: dict[str, dict[str, int]]


@whole
async def show_graph(request: Request) -> Response:
    """Show the graph of an execution; its ETag is the digest of the plan."""
    execution_id = requested_execution_id(request)
    shared = shared_of(request.app)
    row, _ = await shared.store.executions.listing.execution(execution_id)
    if row.plan and _is_known(request.headers.get("if-none-match", ""), row.plan):
        return Response(status_code=304, headers={"etag": f'"{row.plan}"'})
    plan = await shared.plans.load(execution_id, row.plan or "")
    body = _graph(execution_id, plan).__dict__
    body["finally"] = body.pop("finally_")
    headers = {"etag": f'"{plan.digest}"'}
    return Response(orjson.dumps(body), headers=headers, media_type="application/json")


def _is_known(header: str, digest: str) -> bool:
    """Whether it names this version (RFC 9110, 13.1.2), which is never weaker than another."""
    tags = {one.strip().removeprefix("W/") for one in header.split(",")}
    return "*" in tags or f'"{digest}"' in tags


@whole
async def show_states(request: Request) -> Response:
    """Show the states of all nodes of an execution, one letter each."""
    execution_id = requested_execution_id(request)
    shared = shared_of(request.app)
    store = shared.store
    row, details = await store.executions.listing.execution(execution_id)
    plan = await shared.plans.load(execution_id, row.plan or "")
    states = await store.nodes.states(execution_id, list(plan.nodes))
    failed = [one for one, state in states.items() if state is NodeState.FAILED]
    records = await store.nodes.records(execution_id, failed)
    letters = (
        UPSTREAM if one in records and records[one] is None else _LETTER_OF[state or CORRUPT]
        for one, state in states.items()
    )
    return json_response(
        NodeStates.model_construct(
            execution_id=execution_id,
            status=row.status,
            cancelling=details.is_cancelling,
            plan=plan.digest,
            states="".join(letters),
            letters=LETTERS,
            counts=Counter(str(state or CORRUPT) for state in states.values()),
            items=await _items(store, execution_id, plan, states),
        )
    )


async def _items(
    store: Store, execution_id: str, plan: Plan, states: Mapping[str, NodeState | None]
) -> dict[str, dict[str, int]]:
    if not plan.maps:
        return {}
    index_of = {one: index for index, one in enumerate(plan.nodes)}
    begun = [one for one in plan.maps if states[one] not in _UNTOUCHED][:MAPS_COUNTED_MAX]
    counts = {one: await store.nodes.maps.counts(execution_id, one) for one in begun}
    return {str(index_of[one]): count for one, count in counts.items() if count}


def _graph(execution_id: str, plan: Plan) -> Graph:
    nodes = list(plan.nodes.values())
    index_of = {node.id: index for index, node in enumerate(nodes)}
    ran_as = [node.map.item if node.map else node for node in nodes]
    handlers = {name: index for index, name in enumerate(dict.fromkeys(n.handler for n in ran_as))}
    last = [index_of[one] for one in plan.nodes if one in plan.finally_nodes]
    return Graph.model_construct(
        execution_id=execution_id,
        name=plan.name,
        plan=plan.digest,
        nodes=len(nodes),
        ids=list(plan.nodes),
        handlers=list(handlers),
        handler=[handlers[one.handler] for one in ran_as],
        dependencies=[[index_of[above] for above in one.dependencies] for one in nodes],
        maps=[index_of[one] for one in plan.maps],
        finally_=last,
        when=_indices(nodes, lambda node: node.choice is not None and node.choice.has_condition),
        allow_failure=_indices(nodes, lambda node: node.allow_failure),
        signals=_indices(ran_as, lambda node: node.handler == SIGNAL),
        workflows=_indices(ran_as, lambda node: node.handler == WORKFLOW),
    )


def _indices(nodes: list[PlannedNode], is_one: Callable[[PlannedNode], bool]) -> list[int]:
    return [index for index, node in enumerate(nodes) if is_one(node)]


_PROBLEMS = ("unknown_execution", "corrupt_execution", "store_unavailable")

ROUTES = [
    Endpoint(
        "GET",
        "/workflows/{execution_id}/graph",
        show_graph,
        scope="read",
        answers={200: Graph, 304: ""},
        problems=_PROBLEMS,
    ),
    Endpoint(
        "GET",
        "/workflows/{execution_id}/states",
        show_states,
        scope="read",
        answers={200: NodeStates},
        problems=_PROBLEMS,
    ),
]
