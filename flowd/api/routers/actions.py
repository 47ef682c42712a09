"""Act on many executions with one request: those that are named, or those that pass a filter."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field
from pydantic.config import JsonDict
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.model import Model
from flowd.api.contract.problems import as_document
from flowd.api.contract.route import Endpoint
from flowd.api.contract.small_body import SmallBody, read_small_body
from flowd.api.http.auth import refuse_scope
from flowd.api.http.responses import (
    IDEMPOTENCY_HEADER,
    json_response,
    token_of,
)
from flowd.api.routers.lifecycle import delete_execution
from flowd.api.routers.listing import Label, Time, WorkflowRow, row_fields
from flowd.api.shared import claim_execution, shared_of
from flowd.errors import FlowdError, InvalidRequest, Problem, StoreError, UnknownExecution
from flowd.orchestrator import executor
from flowd.orchestrator.rerun import FAILED, plan_rerun, run_again
from flowd.store import Store
from flowd.store.idempotency import Claimed
from flowd.store.listing import ExecutionRow, Filters
from flowd.workflow.ids import is_execution_id, time_of
from flowd.workflow.states import ExecutionState

EXECUTIONS_MAX: Final = 1_000
SAMPLE_MAX: Final = 10
# How many are acted on side by side.
_AT_ONCE: Final = 16
_ID_CHARS_MAX: Final = 64

Action = Literal["cancel", "pause", "resume", "rerun", "delete"]


def _given(name: str, schema: dict[str, Any]) -> JsonDict:
    """Said of a body in its JSON Schema: it has this property, and such a one."""
    return {"required": [name], "properties": {name: schema}}


class ActionFilter(Model):
    """As the parameters of `GET /workflows`; at least one of them."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        json_schema_extra={
            "anyOf": [
                *(_given(name, {"minItems": 1}) for name in ("status", "label")),
                *(_given(name, {"not": {"type": "null"}}) for name in ("name", "since", "until")),
            ]
        },
    )

    status: list[ExecutionState] = Field(default_factory=list)
    name: str | None = None
    label: list[Label] = Field(default_factory=list)
    since: Time | None = None
    until: Time | None = None


class ActionsBody(SmallBody):
    model_config = ConfigDict(
        json_schema_extra={
            "oneOf": [_given("ids", {"type": "array"}), _given("filter", {"type": "object"})]
        }
    )

    action: Action
    ids: list[str] | None = Field(
        default=None, min_length=1, max_length=EXECUTIONS_MAX, description="these executions"
    )
    chosen: ActionFilter | None = Field(
        default=None, alias="filter", strict=False, description="or those that pass"
    )
    preview: bool = Field(default=False, description="only count them and show a few")
    force: bool = Field(default=False, description="of a cancellation: leave out `finally`")


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class ActionPreview(_Body):
    """How many would be acted on, and the first of them; `more` pass than one request acts on."""

    action: Action
    count: int
    more: bool
    sample: list[WorkflowRow]


class ActionResult(_Body):
    """What came of one; `new_execution_id` is that of a rerun."""

    execution_id: str
    outcome: Literal["done", "refused"]
    code: str | None
    message: str | None
    new_execution_id: str | None


class ActionAnswer(_Body):
    """The result for each, in their order; `more` pass than one request acts on."""

    action: Action
    count: int
    more: bool
    results: list[ActionResult]


async def act(request: Request) -> Response:
    """Cancel, pause, resume, rerun or delete up to 1,000 executions; each on its own.

    Those in `ids`, or the newest that pass the `filter`. A rerun starts at once with what failed.
    With an Idempotency-Key the same request may be sent again: nothing is run again twice, and a
    filter passes nothing that was submitted after it was sent first.
    """
    store = shared_of(request.app).store
    body, written = await read_small_body(request, ActionsBody)
    if body.action == "delete" and (refusal := refuse_scope(token_of(request), "admin")):
        return refusal
    _expect_choice(body)
    if body.preview:
        rows, more = await _chosen(store, body)
        return json_response(
            ActionPreview.model_construct(
                action=body.action,
                count=len(rows),
                more=more,
                sample=[row_fields(one) for one in rows[:SAMPLE_MAX]],
            )
        )
    claimed = await claim_execution(request, b"actions " + written)
    # Sent again it finds what it has made itself; no filter is to take that for what it is about.
    began_ms = time_of(claimed.execution_id) if claimed.key_digest else None
    rows, more = await _chosen(store, body, began_ms)
    results: list[ActionResult] = []
    for at in range(0, len(rows), _AT_ONCE):
        some = rows[at : at + _AT_ONCE]
        results += await asyncio.gather(
            *(_act_on(store, body, one.execution_id, claimed) for one in some)
        )
    return json_response(
        ActionAnswer.model_construct(
            action=body.action, count=len(results), more=more, results=results
        )
    )


def _expect_choice(body: ActionsBody) -> None:
    """Raises InvalidRequest."""
    if (body.ids is None) == (body.chosen is None):
        message = "name the executions in `ids`, or say in `filter` which; one of both"
        raise InvalidRequest([Problem("", "wrong_choice", message)])
    if body.chosen and (not body.chosen.model_fields_set or body.chosen == ActionFilter()):
        message = "a filter without anything would be all; name a status, name, label or time"
        raise InvalidRequest([Problem("filter", "empty_filter", message)])


async def _chosen(
    store: Store, body: ActionsBody, before_ms: int | None = None
) -> tuple[Sequence[ExecutionRow], bool]:
    """Those it names, or the newest that pass, and were submitted before this time; and whether
    more do."""
    wanted = body.chosen
    if wanted is None:
        ids = list(dict.fromkeys(one[:_ID_CHARS_MAX] for one in body.ids or ()))
        known = await store.executions.listing.rows([one for one in ids if is_execution_id(one)])
        found = {row.execution_id: row for row in known}
        return [found.get(one) or ExecutionRow(one, None) for one in ids], False
    ends = [one for one in (wanted.until, before_ms) if one is not None]
    filters = Filters(
        frozenset(wanted.status),
        wanted.name,
        submitted_after_ms=wanted.since,
        submitted_before_ms=min(ends, default=None),
        labels=tuple(wanted.label),
    )
    rows: list[ExecutionRow] = []
    after: str | None = None
    while True:
        page = await store.executions.listing.page(filters, EXECUTIONS_MAX - len(rows), after)
        rows += page.rows
        after = page.next_id
        if after is None or len(rows) >= EXECUTIONS_MAX:
            return rows, after is not None


async def _act_on(
    store: Store, body: ActionsBody, execution_id: str, claimed: Claimed
) -> ActionResult:
    """Raises StoreError where Redis does not answer, or takes nothing: then the rest is left."""
    new_id = None
    try:
        if not is_execution_id(execution_id):
            raise UnknownExecution(execution_id)
        new_id = await _do(store, body, execution_id, claimed)
    except FlowdError as error:
        if isinstance(error, StoreError) and error.code != "corrupt_execution":
            raise
        problem = as_document(error)
        return ActionResult(
            execution_id=execution_id,
            outcome="refused",
            code=problem["code"],
            message=problem["detail"],
            new_execution_id=None,
        )
    return ActionResult(
        execution_id=execution_id, outcome="done", code=None, message=None, new_execution_id=new_id
    )


async def _do(store: Store, body: ActionsBody, execution_id: str, claimed: Claimed) -> str | None:
    """The id of the new execution, where there is one."""
    match body.action:
        case "cancel":
            await executor.cancel_execution(store, execution_id, force=body.force)
        case "pause":
            await executor.pause_execution(store, execution_id)
        case "resume":
            await executor.resume_execution(store, execution_id)
        case "delete":
            await delete_execution(store, execution_id)
        case "rerun":
            planned = await plan_rerun(store, execution_id, FAILED, None)
            claimant = claimed.execution_id
            one = claimed._replace(execution_id=_rerun_id(claimant, execution_id))
            await run_again(store, planned, one, claimant=claimant)
            return one.execution_id
    return None


def _rerun_id(claimant: str, execution_id: str) -> str:
    """The same for the same request and the same execution, however often it is sent."""
    digest = hashlib.sha256(f"{claimant} {execution_id}".encode()).hexdigest()
    return claimant[:12] + digest[:12]


ROUTES = [
    Endpoint(
        "POST",
        "/workflows/actions",
        act,
        scope="trigger",
        answers={200: (ActionAnswer, ActionPreview)},
        problems=("invalid_request", "idempotency_mismatch"),
        body=ActionsBody,
        headers=IDEMPOTENCY_HEADER,
    ),
]
