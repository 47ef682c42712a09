"""Why does this not run?"""

from __future__ import annotations

from pydantic import ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.model import Model
from flowd.api.contract.route import Endpoint
from flowd.api.contract.whole import whole
from flowd.api.http.responses import json_response, requested_execution_id
from flowd.api.routers.logs import NodeAttempt, attempts_of
from flowd.api.shared import shared_of
from flowd.errors import UnknownNode
from flowd.workflow.states import ExecutionState, NodeState


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeReason(_Body):
    """`code` is stable, `message` is for people."""

    code: str
    message: str


class NodeExplanation(_Body):
    """`attempts` are the last 20, the oldest first, where one node is asked about; else none."""

    node_id: str
    state: NodeState | None
    reasons: list[NodeReason]
    traceback: str | None
    attempts: list[NodeAttempt]


class WorkflowExplanation(_Body):
    """The nodes that are not done, those that say most first; `more` are not listed.

    `traceback` is of the failure that the summary names.
    """

    execution_id: str
    status: ExecutionState | None
    summary: str
    nodes: list[NodeExplanation]
    more: int
    traceback: str | None


@whole
async def explain_workflow(request: Request) -> Response:
    """Explain why an execution has not ended, node by node."""
    return await _explain(request, None)


@whole
async def explain_node(request: Request) -> Response:
    """Explain why a node does not run, or how it ended."""
    node_id = str(request.path_params["node_id"])
    if len(node_id) > 128:
        raise UnknownNode(requested_execution_id(request), node_id[:128])
    return await _explain(request, node_id)


async def _explain(request: Request, node_id: str | None) -> Response:
    shared, execution_id = shared_of(request.app), requested_execution_id(request)
    explanation = await shared.observer.explain(execution_id, node_id)
    attempts = await attempts_of(shared.store, execution_id, node_id) if node_id else []
    return json_response(
        WorkflowExplanation(
            execution_id=explanation.execution_id,
            status=explanation.status,
            summary=explanation.summary,
            nodes=[
                NodeExplanation(
                    node_id=node.node_id,
                    state=node.state,
                    reasons=[
                        NodeReason(code=one.code, message=one.message) for one in node.reasons
                    ],
                    traceback=node.traceback,
                    attempts=[NodeAttempt(**one) for one in attempts],
                )
                for node in explanation.nodes
            ],
            more=explanation.more,
            traceback=explanation.traceback,
        )
    )


_PROBLEMS = ("unknown_execution", "corrupt_execution", "store_unavailable")

ROUTES = [
    Endpoint(
        "GET",
        "/workflows/{execution_id}/explain",
        explain_workflow,
        scope="read",
        answers={200: WorkflowExplanation},
        problems=_PROBLEMS,
    ),
    Endpoint(
        "GET",
        "/workflows/{execution_id}/explain/{node_id}",
        explain_node,
        scope="read",
        answers={200: WorkflowExplanation},
        problems=(*_PROBLEMS, "unknown_node"),
    ),
]
