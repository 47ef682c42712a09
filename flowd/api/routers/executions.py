"""Look at an execution: its state, and the outputs of its nodes."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flowd.api.responses import json_response, requested_execution_id
from flowd.api.schemas import ExecutionResults, ExecutionStatus
from flowd.store import Store


async def show_status(request: Request) -> Response:
    execution_id = requested_execution_id(request)
    store: Store = request.app.state.store
    status = await store.executions.execution_status(execution_id)
    return json_response(ExecutionStatus(execution_id=execution_id, status=status))


async def show_results(request: Request) -> Response:
    execution_id = requested_execution_id(request)
    store: Store = request.app.state.store
    results = await store.executions.execution_results(execution_id)
    return json_response(ExecutionResults(execution_id=execution_id, results=results))


ROUTES = [
    Route("/workflows/{execution_id}", show_status, methods=["GET"]),
    Route("/workflows/{execution_id}/results", show_results, methods=["GET"]),
]
