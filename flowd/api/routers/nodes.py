"""Look at the nodes of an execution: a page of them, one of them, and all along the clock."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import islice
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
from flowd.api.routers.logs import NodeAttempt, attempts_of
from flowd.api.shared import shared_of
from flowd.errors import UnknownNode
from flowd.orchestrator.items import find_item
from flowd.orchestrator.rendering import NOTHING, rendered_config
from flowd.store import Store
from flowd.store.attempt_records import AttemptRecord
from flowd.store.executions import NODES_PER_CALL_MAX, slices
from flowd.store.nodes import NO_REPORT, NodeRow, WaitStanding, took_ms
from flowd.workflow.graph import Plan, PlannedNode
from flowd.workflow.ids import WORKFLOW
from flowd.workflow.queues import bare
from flowd.workflow.states import ExecutionState, NodeState

LIMIT_DEFAULT = 100
LIMIT_MAX = 1000
TIMELINE_MAX = 20_000


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeWait(_Body):
    """What wakes a node: a `date`, a `moment`, a `signal`; `until_ms` is when it is woken at last,
    null for never, `text` what is said to whoever looks. Where it waits for a place of a limit
    (`slot`), that is the place, and `before` is how many get one before it; null otherwise."""

    waits_for: str
    since_ms: int
    until_ms: int | None
    text: str
    before: int | None


class Node(_Body):
    """`attempt` and what follows are of its newest attempt; null is what is not known yet.
    `began_ms` is when its first attempt started, `duration_ms` how long from then to its end.

    `cached` says that its output is that of an equal call, and its handler did not run; `items` is
    how many items of a node with `map` are in each state; null for any other.
    """

    node_id: str
    handler: str
    state: NodeState | None
    attempt: int | None
    worker: str | None
    queued_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    began_ms: int | None
    duration_ms: int | None
    error: str | None
    skipped_because: str | None
    waiting: NodeWait | None
    cached: bool
    items: dict[str, int] | None


class ParentNode(Node):
    """A node of the handler `workflow`: `child` is the newest execution it has waited for, null
    before there is one."""

    child: str | None


class NodePage(_Body):
    execution_id: str
    nodes: list[ParentNode | Node]
    next_cursor: str | None


class NodeRetry(_Body):
    failures: int
    max_attempts: int
    due_ms: int | None


class NodeDetail(Node):
    """`rendered_config` is what its handler gets, null until all it reads is there.

    `traceback` is that of the newest failure, where an exception nobody meant was its cause;
    `output` of a failed node what its program wrote. `attempts` are the last 20, the oldest first.
    """

    dependencies: list[str]
    dependents: list[str]
    config: dict[str, Any]
    rendered_config: dict[str, Any] | None
    output: Any
    traceback: str | None
    retry: NodeRetry | None
    attempts: list[NodeAttempt]


class ParentNodeDetail(NodeDetail):
    """One of the handler `workflow`, with its `child`."""

    child: str | None


class TimelineNode(_Body):
    node_id: str
    state: NodeState | None
    attempt: int | None
    worker: str | None
    queued_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    began_ms: int | None
    duration_ms: int | None


class Timeline(_Body):
    """The nodes that were queued at least once, each as in the list of nodes; `more` of them are
    not listed."""

    execution_id: str
    status: ExecutionState
    triggered_ms: int | None
    finished_ms: int | None
    nodes: list[TimelineNode]
    more: int


class NodesQuery(Model):
    state: list[NodeState] = Field(
        default_factory=list, description="only in this state; separate several with commas"
    )
    limit: int = Field(default=LIMIT_DEFAULT, ge=1, le=LIMIT_MAX)
    cursor: str | None = Field(default=None, description="`next_cursor` of the previous page")


@whole
async def list_nodes(request: Request) -> Response:
    """List the nodes of an execution in the order of its definition."""
    execution_id = requested_execution_id(request)
    query = read_query(request, NodesQuery)
    store, plan = await _store_and_plan(request, execution_id)
    after = read_cursor(query.cursor, plan.nodes.__contains__)
    node_ids = list(plan.nodes)
    begin = node_ids.index(after) + 1 if after is not None else 0
    states, next_id = await _page(store, execution_id, node_ids[begin:], query)
    rows = await store.nodes.rows(execution_id, states)
    items = {
        one: await store.nodes.maps.counts(execution_id, one) for one in plan.maps if one in states
    }
    parents = [one for one in states if plan.nodes[one].handler == WORKFLOW]
    children = await store.children.newest(execution_id, parents)
    return json_response(
        NodePage(
            execution_id=execution_id,
            nodes=[
                _node(row, plan.nodes[row.node_id], items.get(row.node_id), children)
                for row in rows
            ],
            next_cursor=write_cursor(next_id),
        )
    )


def _node(
    row: NodeRow,
    node: PlannedNode,
    items: dict[str, int] | None,
    children: Mapping[str, str],
) -> Node:
    fields = node_fields(row, node) | {"items": items}
    if node.handler != WORKFLOW:
        return Node(**fields)
    return ParentNode(**fields, child=children.get(row.node_id))


async def _page(
    store: Store, execution_id: str, node_ids: list[str], query: NodesQuery
) -> tuple[dict[str, NodeState | None], str | None]:
    """The first of these nodes that pass, and the last of them if there may be more."""
    accepted, rows = set(query.state), dict[str, NodeState | None]()
    for portion in slices(node_ids, NODES_PER_CALL_MAX if accepted else query.limit + 1):
        states = await store.nodes.states(execution_id, portion)
        passing = {one: state for one, state in states.items() if not accepted or state in accepted}
        room = query.limit - len(rows)
        rows.update(islice(passing.items(), room))
        if len(passing) > room:
            return rows, list(rows)[-1]
    return rows, None


@whole
async def show_node(request: Request) -> Response:
    """Show one node with its config, as written and as rendered, and its output."""
    execution_id = requested_execution_id(request)
    node_id = str(request.path_params["node_id"])
    store, plan = await _store_and_plan(request, execution_id)
    node = plan.find(node_id)
    item = await find_item(store, execution_id, node_id) if node and node.is_item else None
    if node is None or (node.is_item and item is None):
        raise UnknownNode(execution_id, node_id[:128])
    states = item.states if item else await store.nodes.states(execution_id, [node_id])
    (row,) = await store.nodes.rows(execution_id, states)
    output = await store.nodes.output_text(execution_id, node_id)
    has_output = output is not None and row.state is NodeState.COMPLETED
    report = NO_REPORT
    if row.state in (NodeState.FAILED, NodeState.RETRYING):
        report = (await store.nodes.reports(execution_id, [node_id]))[node_id]
    ran_as = node.map.item if node.map else node
    config = dict(ran_as.config.source)
    given = item.given if item else NOTHING
    detail = {
        **node_fields(row, node),
        "items": await store.nodes.maps.counts(execution_id, node_id) if node.map else None,
        "dependencies": list(node.dependencies),
        "dependents": [*map(bare, node.opens), *(bare(one) for one, _ in node.joins)],
        "config": config,
        "rendered_config": await rendered_config(store, plan, execution_id, config, given),
        "output": orjson.Fragment(output or b"null") if has_output else report.output,
        "traceback": report.traceback,
        "retry": await _retry(store, execution_id, node),
        "attempts": await attempts_of(store, execution_id, node_id),
    }
    if node.handler != WORKFLOW:
        return json_response(NodeDetail(**detail))
    children = await store.children.newest(execution_id, [node_id])
    return json_response(ParentNodeDetail(**detail, child=children.get(node_id)))


async def _retry(store: Store, execution_id: str, node: PlannedNode) -> NodeRetry | None:
    standing = (await store.nodes.retries(execution_id, [node.id])).get(node.id)
    if standing is None:
        return None
    attempts = (node.retry or {}).get("max_attempts", store.nodes.default_policy.max_attempts)
    return NodeRetry(failures=standing.failures, max_attempts=attempts, due_ms=standing.due_ms)


@whole
async def show_timeline(request: Request) -> Response:
    """Show when and where each node ran, in the order of the starts."""
    execution_id = requested_execution_id(request)
    store = shared_of(request.app).store
    execution, _ = await store.executions.listing.execution(execution_id)
    plan = await shared_of(request.app).plans.load(execution_id, "")
    states = await store.nodes.states(execution_id, list(plan.nodes))
    records = await store.nodes.records(execution_id, list(plan.nodes))
    begun = [(one, record) for one, record in records.items() if record is not None]
    begun.sort(key=lambda pair: _start(pair[1]))
    began_ms = await store.nodes.began_ms(execution_id, dict(begun[:TIMELINE_MAX]))
    nodes = [
        TimelineNode(
            node_id=node_id,
            state=states[node_id],
            attempt=record.attempt,
            worker=record.worker,
            queued_ms=record.queued_ms,
            started_ms=record.started_ms,
            finished_ms=record.finished_ms,
            began_ms=began_ms.get(node_id),
            duration_ms=took_ms(states[node_id], began_ms.get(node_id), record),
        )
        for node_id, record in begun[:TIMELINE_MAX]
    ]
    return json_response(
        Timeline.model_construct(
            execution_id=execution_id,
            status=execution.status,
            triggered_ms=execution.triggered_ms,
            finished_ms=execution.finished_ms,
            nodes=nodes,
            more=len(begun) - len(nodes),
        )
    )


def _start(record: AttemptRecord) -> tuple[bool, int]:
    """Those that have not started go last, by when they were queued."""
    at_ms = record.queued_ms if record.started_ms is None else record.started_ms
    return record.started_ms is None, at_ms or 0


async def _store_and_plan(request: Request, execution_id: str) -> tuple[Store, Plan]:
    store = shared_of(request.app).store
    await store.executions.execution_status(execution_id)
    return store, await shared_of(request.app).plans.load(execution_id, "")


def node_fields(row: NodeRow, node: PlannedNode) -> dict[str, Any]:
    """What any view of a node says of it."""
    record = row.record
    return {
        "node_id": row.node_id,
        "handler": node.map.item.handler if node.map else node.handler,
        "state": row.state,
        "attempt": record.attempt,
        "worker": record.worker,
        "queued_ms": record.queued_ms,
        "started_ms": record.started_ms,
        "finished_ms": record.finished_ms,
        "began_ms": row.began_ms,
        "duration_ms": row.took_ms,
        "error": row.error,
        "skipped_because": row.reason,
        "waiting": _waiting(row.wait),
        "cached": record.is_cached,
    }


def _waiting(wait: WaitStanding | None) -> NodeWait | None:
    if wait is None:
        return None
    return NodeWait(
        waits_for=wait.waker,
        since_ms=wait.since_ms,
        until_ms=wait.until_ms,
        text=wait.text,
        before=wait.before,
    )


_PROBLEMS = ("unknown_execution", "corrupt_execution", "store_unavailable")

ROUTES = [
    Endpoint(
        "GET",
        "/workflows/{execution_id}/nodes",
        list_nodes,
        scope="read",
        answers={200: NodePage},
        problems=(*_PROBLEMS, "invalid_request"),
        query=NodesQuery,
    ),
    Endpoint(
        "GET",
        "/workflows/{execution_id}/nodes/{node_id}",
        show_node,
        scope="read",
        answers={200: (NodeDetail, ParentNodeDetail)},
        problems=(*_PROBLEMS, "unknown_node"),
    ),
    Endpoint(
        "GET",
        "/workflows/{execution_id}/timeline",
        show_timeline,
        scope="read",
        answers={200: Timeline},
        problems=_PROBLEMS,
    ),
]
