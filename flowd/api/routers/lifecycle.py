"""Cancel, pause, resume, rerun or delete an execution."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import orjson
from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import (
    CorrectedRerun,
    Deleted,
    ExecutionStatus,
    Rerun,
    RerunNode,
)
from flowd.api.contract.small_body import SmallBody, read_small_body
from flowd.api.http.responses import (
    IDEMPOTENCY_HEADER,
    TRACEPARENT_HEADER,
    json_response,
    requested_execution_id,
    requested_traceparent,
)
from flowd.api.shared import claim_execution, shared_of
from flowd.errors import InvalidWorkflow, WrongState
from flowd.orchestrator import executor
from flowd.orchestrator.rerun import FAILED, plan_rerun, run_again
from flowd.store import Store


class RerunBody(SmallBody):
    start: str = Field(
        default=FAILED,
        alias="from",
        description="a node, to run it and all downstream; or `failed`, for all without an output",
    )
    preview: bool = Field(default=False, description="only list what would run")
    trigger: bool = Field(default=True, description="trigger it at once")
    definition: dict[str, Any] | None = Field(
        default=None,
        description="a corrected workflow to run in place of the old one; what it changes runs too",
    )


class CancelBody(SmallBody):
    force: bool = Field(
        default=False, description="leave out the nodes of `finally`, or break them off"
    )


async def cancel(request: Request) -> Response:
    """Cancel an execution; running nodes are told to stop."""
    execution_id = requested_execution_id(request)
    body, _ = await read_small_body(request, CancelBody)
    store = shared_of(request.app).store
    await executor.cancel_execution(store, execution_id, force=body.force)
    return await _status(request, execution_id)


async def pause(request: Request) -> Response:
    """Pause an execution; running nodes finish."""
    execution_id = requested_execution_id(request)
    await executor.pause_execution(shared_of(request.app).store, execution_id)
    return await _status(request, execution_id)


async def resume(request: Request) -> Response:
    """Resume a paused execution."""
    execution_id = requested_execution_id(request)
    await executor.resume_execution(shared_of(request.app).store, execution_id)
    return await _status(request, execution_id)


async def _status(request: Request, execution_id: str) -> Response:
    status = await shared_of(request.app).store.executions.execution_status(execution_id)
    return json_response(ExecutionStatus(execution_id=execution_id, status=status))


async def rerun(request: Request) -> Response:
    """Run an ended execution again, as a new one that reuses outputs.

    With a corrected `definition`, what has changed, what is new and all downstream of it runs as
    well, and the answer lists the nodes that were `removed`. With an Idempotency-Key the same
    request runs it again once, however often it is sent.
    """
    store = shared_of(request.app).store
    body, text = await read_small_body(request, RerunBody)
    corrected = await _checked(request, body.definition) if body.definition is not None else None
    planned = await plan_rerun(store, requested_execution_id(request), body.start, corrected)
    execution_id = None
    if not body.preview:
        claimed = await claim_execution(request, f"rerun {planned.execution_id} ".encode() + text)
        execution_id = claimed.execution_id
        traceparent = requested_traceparent(request)
        await run_again(store, planned, claimed, is_triggered=body.trigger, traceparent=traceparent)
    answer = Rerun(
        execution_id=execution_id,
        rerun_of=planned.execution_id,
        reused=_nodes(planned.reused),
        runs=_nodes(planned.runs),
        left_out=_nodes(planned.left_out),
    )
    if planned.correction is None:
        return json_response(answer)
    removed = dict.fromkeys(planned.correction.removed, "not in the corrected definition")
    return json_response(CorrectedRerun(**answer.__dict__, removed=_nodes(removed)))


async def _checked(request: Request, definition: dict[str, Any]) -> bytes:
    """As it is stored. Raises InvalidWorkflow, with the paths as they are in the body."""
    try:
        return (await shared_of(request.app).check_workflow(orjson.dumps(definition))).definition
    except InvalidWorkflow as error:
        problems = [
            replace(one, path=f"definition.{one.path}".rstrip(".")) for one in error.problems
        ]
        raise InvalidWorkflow(problems) from None


def _nodes(whys: Mapping[str, str]) -> list[RerunNode]:
    return [RerunNode(node_id=node_id, why=why) for node_id, why in whys.items()]


async def delete(request: Request) -> Response:
    """Delete an execution that does not run, with its outputs and events."""
    store = shared_of(request.app).store
    execution_id = requested_execution_id(request)
    await delete_execution(store, execution_id)
    return json_response(Deleted(execution_id=execution_id, message="Workflow deleted"))


async def delete_execution(store: Store, execution_id: str) -> None:
    """Raises WrongState where it may not be deleted, and UnknownExecution."""
    outcome = await store.finished.delete_execution(execution_id)
    if outcome != "deleted":
        raise await _undeletable(store, execution_id, outcome)


async def _undeletable(store: Store, execution_id: str, outcome: str) -> WrongState:
    if outcome == "child":
        kin = await store.children.kin(execution_id)
        parent_id = kin.parent_id if kin else "another"
        hint = "; delete that, and its children go with it"
        return WrongState(execution_id, f"a child of {parent_id!r}", "delete", hint)
    if outcome == "parent":
        status = await store.executions.execution_status(execution_id)
        return WrongState(
            execution_id, status, "delete", ", but not all of its children have ended"
        )
    return WrongState(execution_id, outcome, "delete")


_PROBLEMS = ("unknown_execution", "wrong_state")

ROUTES = [
    Endpoint(
        "POST",
        "/workflows/{execution_id}/cancel",
        cancel,
        scope="trigger",
        answers={200: ExecutionStatus},
        problems=(*_PROBLEMS, "invalid_request"),
        body=CancelBody,
    ),
    *(
        Endpoint(
            "POST",
            f"/workflows/{{execution_id}}/{answer.__name__}",
            answer,
            scope="trigger",
            answers={200: ExecutionStatus},
            problems=_PROBLEMS,
        )
        for answer in (pause, resume)
    ),
    Endpoint(
        "POST",
        "/workflows/{execution_id}/rerun",
        rerun,
        scope="trigger",
        answers={200: (Rerun, CorrectedRerun)},
        problems=(
            *_PROBLEMS,
            "unknown_node",
            "invalid_request",
            "invalid_workflow",
            "idempotency_mismatch",
            "older_process",
            "limit_reached",
        ),
        body=RerunBody,
        headers={**IDEMPOTENCY_HEADER, **TRACEPARENT_HEADER},
    ),
    Endpoint(
        "DELETE",
        "/workflows/{execution_id}",
        delete,
        scope="admin",
        answers={200: Deleted},
        problems=_PROBLEMS,
    ),
]
