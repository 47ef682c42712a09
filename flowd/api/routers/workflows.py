"""Submit a workflow, and trigger the execution it became."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, NamedTuple

import orjson
from pydantic import Field
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from flowd.api.contract.model import Model
from flowd.api.contract.query import read_query
from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import (
    ExecutionOutcome,
    ExecutionStatus,
    Submitted,
    Triggered,
    Validated,
)
from flowd.api.contract.small_body import SmallBody, read_small_body
from flowd.api.http.body import read_body
from flowd.api.http.event_stream import has_left
from flowd.api.http.responses import (
    IDEMPOTENCY_HEADER,
    TRACEPARENT_HEADER,
    json_response,
    requested_execution_id,
    requested_idempotency_key,
    requested_traceparent,
)
from flowd.api.results_response import results_response
from flowd.api.shared import Shared, shared_of
from flowd.api.workflow_check import CheckedWorkflow
from flowd.errors import InvalidRequest, Problem, UnknownExecution
from flowd.orchestrator import executor
from flowd.orchestrator.pinning import pinned
from flowd.orchestrator.runs import run_workflow
from flowd.orchestrator.versions import expect_no_older_process
from flowd.store.executions import now_ms
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.ids import new_execution_id

WAIT_S_MAX = 3600


class SubmitQuery(Model):
    trigger: bool = Field(default=False, description="trigger it at once")
    wait: float | None = Field(
        default=None,
        ge=0,
        le=WAIT_S_MAX,
        description="answer when it has ended, or after this many seconds; only with trigger",
    )


class TriggerBody(SmallBody):
    input: dict[str, Any] | None = Field(
        default=None, description="values for `input`; they override the workflow's own key by key"
    )


async def submit_workflow(request: Request) -> Response:
    """Submit a workflow.

    With `trigger` it starts at once, with `wait` the answer is its results.
    """
    shared, query = shared_of(request.app), read_query(request, SubmitQuery)
    if query.wait is not None and not query.trigger:
        message = "only what was triggered can be waited for; add trigger=true"
        raise InvalidRequest([Problem("query.wait", "needs_trigger", message)])
    body = await read_body(request, shared.body_bytes_max)
    workflow = await shared.check_workflow(body)
    traceparent = requested_traceparent(request) if query.trigger else None
    submission = Submission(new_execution_id(now_ms()), traceparent)
    if key := requested_idempotency_key(request):
        asked = b"submit %d " % query.trigger + body
        claimed = await shared.store.submissions.idempotency.claim(
            key, asked, submission.execution_id
        )
        submission = Submission(claimed.execution_id, traceparent, claimed.key_digest)
        # Deleted since, it is answered as the first time, and its work is not done again.
        if not claimed.is_deleted:
            with contextlib.suppress(UnknownExecution):
                await submit(shared, workflow, submission)
    else:
        await submit(shared, workflow, submission)
    execution_id = submission.execution_id
    if query.wait is not None:
        return await _wait(request, execution_id, query.wait)
    return json_response(Submitted(execution_id=execution_id, message="Workflow accepted"))


class Submission(NamedTuple):
    """`traceparent` is None for what is only stored, and empty where nobody said; `key_digest` and
    `claimant` are those of `Runs`."""

    execution_id: str
    traceparent: str | None
    key_digest: str = ""
    claimant: str = ""


async def submit(shared: Shared, workflow: CheckedWorkflow, submission: Submission) -> None:
    """Store a checked workflow as an execution, or run it. Raises InvalidRequest where the
    workflow's own input does not fit its schema, and what the store does."""
    execution_id, traceparent, key_digest, claimant = submission
    store = shared.store
    definition, outline = await pinned(store, *workflow)
    if traceparent is None:
        await expect_no_older_process(store, outline.language)
        await store.submissions.submit_workflow(
            definition,
            outline,
            execution_id=execution_id,
            key_digest=key_digest,
            claimant=claimant,
        )
        return
    if outline.has_input_schema:
        plan = await shared.plans.of_definition(execution_id, definition)
        check = shared.check_workflow.expect_inputs_fit
        await check(plan.input_schema or {}, plan.default_input, {"input": {}})
    await run_workflow(
        store,
        definition,
        outline,
        execution_id=execution_id,
        key_digest=key_digest,
        claimant=claimant,
        traceparent=traceparent,
    )


async def _wait(request: Request, execution_id: str, timeout_s: float) -> Response:
    shared = shared_of(request.app)
    waiting = asyncio.create_task(shared.waiting.wait_for_end(execution_id, timeout_s))
    leaving = asyncio.create_task(has_left(request.receive))
    try:
        await asyncio.wait((waiting, leaving), return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done():
            raise ClientDisconnect
        status = waiting.result()
    finally:
        waiting.cancel()
        leaving.cancel()
    if status is None:
        status = await shared.store.executions.execution_status(execution_id)
        return json_response(ExecutionStatus(execution_id=execution_id, status=status), 202)
    about = ExecutionStatus(execution_id=execution_id, status=status)
    return await results_response(shared.store, shared.plans, execution_id, about)


async def check_workflow(request: Request) -> Response:
    """Validate a workflow as a submission would, and store nothing."""
    shared = shared_of(request.app)
    workflow = await shared.check_workflow(await read_body(request, shared.body_bytes_max))
    return json_response(Validated(valid=True, nodes=len(workflow.outline.nodes)))


async def trigger_workflow(request: Request) -> Response:
    """Trigger an execution; triggering it again changes nothing."""
    store = shared_of(request.app).store
    execution_id = requested_execution_id(request)
    given, body = await read_small_body(request, TriggerBody)
    if key := requested_idempotency_key(request):
        asked = b"trigger " + execution_id.encode() + b" " + body
        await store.submissions.idempotency.claim(key, asked, execution_id)
    given_input = b"" if given.input is None else orjson.dumps(given.input)
    traceparent = requested_traceparent(request)
    check = shared_of(request.app).check_workflow.expect_inputs_fit
    await executor.trigger_workflow(store, execution_id, given_input, traceparent, check)
    return json_response(Triggered(message="Workflow triggered", execution_id=execution_id))


_HEADERS = {**IDEMPOTENCY_HEADER, **TRACEPARENT_HEADER}

ROUTES = [
    Endpoint(
        "POST",
        "/workflow",
        submit_workflow,
        scope="trigger",
        answers={200: (Submitted, ExecutionOutcome), 202: ExecutionStatus},
        problems=(
            "older_process",
            "invalid_workflow",
            "invalid_request",
            "idempotency_mismatch",
            "limit_reached",
            "results_too_large",
        ),
        query=SubmitQuery,
        body=WorkflowDefinition,
        headers=_HEADERS,
    ),
    Endpoint(
        "POST",
        "/workflow/validate",
        check_workflow,
        scope="read",
        answers={200: Validated},
        problems=("invalid_workflow",),
        body=WorkflowDefinition,
    ),
    Endpoint(
        "POST",
        "/workflow/trigger/{execution_id}",
        trigger_workflow,
        scope="trigger",
        answers={200: Triggered},
        problems=(
            "invalid_request",
            "unknown_execution",
            "idempotency_mismatch",
            "limit_reached",
        ),
        body=TriggerBody,
        headers=_HEADERS,
    ),
]
