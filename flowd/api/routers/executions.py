"""Look at an execution: its state, and the outputs of its nodes."""

from __future__ import annotations

import orjson
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import (
    About,
    ExecutionOutput,
    ExecutionResults,
    ShownExecution,
)
from flowd.api.http.responses import requested_execution_id
from flowd.api.results_response import results_response
from flowd.api.shared import shared_of
from flowd.handlers.outcome import OUTPUT_BYTES_MAX
from flowd.orchestrator.worth import output_of


async def show_status(request: Request) -> Response:
    """Show the state of an execution, and where it comes from, if not from a submission."""
    execution_id = requested_execution_id(request)
    store = shared_of(request.app).store
    status, kin, origin = await store.executions.status_and_origin(execution_id)
    parent = {"execution_id": kin.parent_id, "node_id": kin.node_id} if kin else None
    said = {"parent": parent, **origin._asdict()}
    shown = {name: one for name, one in said.items() if one}
    body = orjson.dumps({"execution_id": execution_id, "status": status, **shown})
    return Response(body, media_type="application/json")


async def show_results(request: Request) -> Response:
    """Show the outputs of all nodes of an execution that have ended."""
    execution_id = requested_execution_id(request)
    about = About(execution_id=execution_id)
    shared = shared_of(request.app)
    return await results_response(shared.store, shared.plans, execution_id, about)


async def show_output(request: Request) -> Response:
    """Show what an execution that completed is worth: its `output`, or else its results."""
    execution_id = requested_execution_id(request)
    shared = shared_of(request.app)
    plan = await shared.plans.load(execution_id, "")
    output = await output_of(shared.store, plan, execution_id, OUTPUT_BYTES_MAX)
    body = b'{"execution_id":"%b","output":%b}' % (execution_id.encode(), output)
    return Response(body, media_type="application/json")


_PROBLEMS = ("unknown_execution", "corrupt_execution", "store_unavailable")

ROUTES = [
    Endpoint(
        "GET",
        "/workflows/{execution_id}",
        show_status,
        scope="read",
        answers={200: ShownExecution},
        problems=_PROBLEMS,
    ),
    Endpoint(
        "GET",
        "/workflows/{execution_id}/results",
        show_results,
        scope="read",
        answers={200: ExecutionResults},
        problems=(*_PROBLEMS, "results_too_large"),
    ),
    Endpoint(
        "GET",
        "/workflows/{execution_id}/output",
        show_output,
        scope="read",
        answers={200: ExecutionOutput},
        problems=(*_PROBLEMS, "results_too_large", "wrong_state", "output_failed"),
    ),
]
