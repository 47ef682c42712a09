"""Submit many workflows with one request, each of which is accepted or refused on its own."""

from __future__ import annotations

import asyncio
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any, Final

import orjson
from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.model import Model
from flowd.api.contract.problems import as_document
from flowd.api.contract.query import read_query
from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import ProblemDocument, Submitted
from flowd.api.contract.small_body import parse_body
from flowd.api.http.body import read_body
from flowd.api.http.responses import (
    IDEMPOTENCY_HEADER,
    TRACEPARENT_HEADER,
    json_response,
    requested_traceparent,
)
from flowd.api.routers.workflows import Submission, submit
from flowd.api.shared import Shared, claim_execution, shared_of
from flowd.errors import (
    InvalidRequest,
    InvalidWorkflow,
    OlderProcess,
    Problem,
    UnknownExecution,
)
from flowd.orchestrator.runs import ids_of
from flowd.workflow.concurrency import LimitReached
from flowd.workflow.definition import WorkflowDefinition

WORKFLOWS_MAX: Final = 1_000
# How many are checked and stored side by side.
_AT_ONCE: Final = 16
_PLACE: Final = re.compile(r"workflows\[(\d+)\]\.?(.*)", re.DOTALL)


class BatchQuery(Model):
    trigger: bool = Field(default=False, description="trigger each at once")


class BatchBody(Model):
    workflows: list[WorkflowDefinition] = Field(min_length=1, max_length=WORKFLOWS_MAX)


class Refused(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")

    problem: ProblemDocument


class BatchAnswer(Model):
    """One answer for each workflow, in their order."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    results: list[Submitted | Refused]


async def submit_batch(request: Request) -> Response:
    """Submit up to 1,000 workflows; each is accepted, or refused with everything that is wrong.

    With an Idempotency-Key the same request makes each of them once, however often it is sent.
    """
    shared, query = shared_of(request.app), read_query(request, BatchQuery)
    body = await read_body(request, shared.body_bytes_max)
    workflows, hidden = await _read(body)
    claimed = await claim_execution(request, b"batch %d " % query.trigger + body)
    claimant = claimed.execution_id
    traceparent = requested_traceparent(request) if query.trigger else None
    submissions = [
        Submission(one, traceparent, claimed.key_digest, claimant)
        for one in ids_of(claimant, len(workflows))
    ]
    results: list[Any] = []
    for at in range(0, len(workflows), _AT_ONCE):
        results += await asyncio.gather(
            *(
                _submit_one(shared, workflows[one], hidden[one], submissions[one])
                for one in range(at, min(at + _AT_ONCE, len(workflows)))
            )
        )
    return json_response(BatchAnswer.model_construct(results=results))


async def _read(body: bytes) -> tuple[Sequence[Any], Mapping[int, list[Problem]]]:
    """The workflows, and by their number what a parser passes over in silence. Raises
    InvalidRequest."""
    document, hidden = await parse_body(body)
    workflows = document.get("workflows") if isinstance(document, dict) else None
    problems: list[Problem] = []
    if not isinstance(workflows, list) or len(document) > 1:
        message = 'expected an object with `workflows`, an array, such as {"workflows": [{…}]}'
        problems.append(Problem("", "wrong_type", message))
    elif not 1 <= len(workflows) <= WORKFLOWS_MAX:
        message = f"expected 1 to {WORKFLOWS_MAX:,} workflows, not {len(workflows):,}"
        problems.append(Problem("workflows", "invalid_value", message))
    by_number: defaultdict[int, list[Problem]] = defaultdict(list)
    for problem in hidden:
        place = _PLACE.fullmatch(problem.path)
        if place is None:
            problems.append(problem)
        else:
            by_number[int(place[1])].append(Problem(place[2], problem.code, problem.message))
    if problems:
        raise InvalidRequest(problems)
    return workflows or (), by_number


async def _submit_one(
    shared: Shared, workflow: Any, hidden: Sequence[Problem], submission: Submission
) -> Any:
    """What is answered about one of them. Raises StoreUnavailable."""
    try:
        if hidden:
            raise InvalidWorkflow(hidden)
        checked = await shared.check_workflow(orjson.dumps(workflow))
        await submit(shared, checked, submission)
    except UnknownExecution:
        # Deleted since: it is answered as the first time, and its work is not done again.
        pass
    except (InvalidWorkflow, InvalidRequest, LimitReached, OlderProcess) as error:
        return {"problem": as_document(error)}
    return Submitted(execution_id=submission.execution_id, message="Workflow accepted")


ROUTES = [
    Endpoint(
        "POST",
        "/workflows/batch",
        submit_batch,
        scope="trigger",
        answers={200: BatchAnswer},
        problems=("invalid_request", "invalid_workflow", "idempotency_mismatch"),
        query=BatchQuery,
        body=BatchBody,
        headers={**IDEMPOTENCY_HEADER, **TRACEPARENT_HEADER},
    ),
]
