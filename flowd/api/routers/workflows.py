"""Submit a workflow, and trigger the execution it became."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flowd.api.body import read_body
from flowd.api.responses import json_response, requested_execution_id
from flowd.api.schemas import Submitted, Triggered
from flowd.api.validator import validate_workflow
from flowd.orchestrator import executor


async def submit_workflow(request: Request) -> Response:
    state = request.app.state
    workflow = validate_workflow(await read_body(request), state.handlers)
    execution_id = await executor.submit_workflow(state.store, workflow)
    return json_response(Submitted(execution_id=execution_id, message="Workflow accepted"))


async def trigger_workflow(request: Request) -> Response:
    execution_id = requested_execution_id(request)
    await executor.trigger_workflow(request.app.state.store, execution_id)
    return json_response(Triggered(message="Workflow triggered", execution_id=execution_id))


ROUTES = [
    Route("/workflow", submit_workflow, methods=["POST"]),
    Route("/workflow/trigger/{execution_id}", trigger_workflow, methods=["POST"]),
]
