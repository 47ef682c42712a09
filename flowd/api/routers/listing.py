"""List executions, and look at one of them as a whole."""

from __future__ import annotations

import re
from collections import Counter
from datetime import UTC, datetime
from typing import Annotated, Any, Literal, get_args

import orjson
from pydantic import BeforeValidator, ConfigDict, Field, WithJsonSchema
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.cursor import read_cursor, write_cursor
from flowd.api.contract.model import Model
from flowd.api.contract.query import read_query
from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import CallbackDelivery, ParentOf
from flowd.api.contract.whole import whole
from flowd.api.http.responses import json_response, requested_execution_id
from flowd.api.routers.callbacks import read_definition, read_delivery
from flowd.api.shared import shared_of
from flowd.orchestrator.rendering import effective_input
from flowd.store import Store
from flowd.store.listing import Details, ExecutionRow, Filters
from flowd.store.places import Place
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.graph import Plan
from flowd.workflow.ids import (
    LABEL_VALUE_PATTERN,
    NAME_PATTERN,
    is_execution_id,
    is_label_value,
    is_name,
)
from flowd.workflow.report import quote
from flowd.workflow.states import ExecutionState

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000
# Nodes whose key is gone or damaged are counted under this word.
CORRUPT = "CORRUPT"
HIDDEN = "***"

RowField = Literal[
    "execution_id",
    "name",
    "status",
    "nodes",
    "submitted_ms",
    "triggered_ms",
    "finished_ms",
    "duration_ms",
    "rerun_of",
    "labels",
]
_ROW_FIELDS: tuple[RowField, ...] = get_args(RowField)
_ORIGIN_FIELDS = ("definition", "labels", "schedule", "scheduled_at")
# A plus sign that was not escaped arrives as a space.
_SPACE_FOR_PLUS = re.compile(r" (?=\d\d:\d\d$)")


def _read_time(text: object) -> object:
    """Unix ms of a time, written as such or as ISO 8601; without an offset it is UTC."""
    if isinstance(text, float) and text.is_integer():
        return int(text)
    if isinstance(text, bool | float):
        raise ValueError("write Unix milliseconds as a whole number")
    if not isinstance(text, str) or (text.isascii() and text.isdecimal() and len(text) <= 15):
        return text
    try:
        written = _SPACE_FOR_PLUS.sub("+", text) if "T" in text else text
        moment = datetime.fromisoformat(written)
        at_s = (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()
        # Nothing is older than the clock.
        return max(0, int(at_s * 1000))
    except (ValueError, OverflowError):
        raise ValueError(
            "write Unix milliseconds, or a time such as 2026-01-31T12:00:00Z"
        ) from None


Time = Annotated[
    int,
    Field(ge=0, lt=10**15),
    BeforeValidator(_read_time),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 10**15 - 1},
                {"type": "string", "format": "date-time"},
            ]
        }
    ),
]


def _read_label(text: object) -> object:
    """`name=value`, as it is stored, of `name:value`."""
    name, _, value = str(text).partition(":")
    if not (is_name(name) and is_label_value(value)):
        raise ValueError(f"write a label as name:value, such as team:x, not {quote(str(text))}")
    return f"{name}={value}"


Label = Annotated[
    str,
    BeforeValidator(_read_label),
    WithJsonSchema({"type": "string", "pattern": f"{NAME_PATTERN[:-1]}:{LABEL_VALUE_PATTERN[1:]}"}),
]


class ListQuery(Model):
    status: list[ExecutionState] = Field(
        default_factory=list, description="only in this state; separate several with commas"
    )
    name: str | None = Field(default=None, description="the whole name, or its beginning and a `*`")
    handler: str | None = Field(default=None, description="only with a node of this handler")
    submitted_after: Time | None = Field(default=None, description="at this time or later")
    submitted_before: Time | None = Field(default=None, description="before this time")
    since: Time | None = Field(default=None, description="as `submitted_after`")
    until: Time | None = Field(default=None, description="as `submitted_before`")
    label: list[Label] = Field(
        default_factory=list,
        description="only with this label, `name:value`; with all, where there are several",
    )
    roots: bool = Field(default=False, description="none that is the child of another one")
    limit: int = Field(default=LIMIT_DEFAULT, ge=1, le=LIMIT_MAX)
    cursor: str | None = Field(default=None, description="`next_cursor` of the previous page")
    fields: list[RowField] = Field(
        default_factory=list, description="only these fields of each execution"
    )


class WorkflowRow(Model):
    """An execution. Null is what nothing is known of, or has not happened yet."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    execution_id: str | None = None
    name: str | None = None
    status: ExecutionState | None = None
    nodes: int | None = None
    submitted_ms: int | None = None
    triggered_ms: int | None = None
    finished_ms: int | None = None
    duration_ms: int | None = None
    rerun_of: str | None = None
    labels: dict[str, str] | None = None


class WorkflowPage(Model):
    """A page may be short, or empty, and not the last: that is the one without `next_cursor`."""

    workflows: list[WorkflowRow]
    next_cursor: str | None


class Usage(Model):
    calls: int
    prompt_tokens: int
    completion_tokens: int
    total_tokens: int


class Budget(Model):
    tokens: int
    spent: int
    reserved: int


class Concurrency(Model):
    """What it holds a place of, or waits for since `waiting_since_ms`, behind `ahead` others;
    `holders` are the executions that have one now, 100 at most."""

    key: str | None
    max: int
    when_full: Literal["queue", "refuse", "replace"]
    waiting_since_ms: int | None
    ahead: int
    holders: list[str]


class WorkflowSummary(WorkflowRow):
    """`error` is why it is FAILED: the first node that did, and what of.

    `rerun_as` (the newest execution that reruns it), `parent`, `definition` (`name@version`),
    `labels`, `schedule`, `scheduled_at` and `concurrency` are there only where it has them."""

    counts: dict[str, int]
    usage: Usage
    budget: Budget | None
    input: dict[str, Any] | None
    error: str | None
    cancelling: bool
    callback: CallbackDelivery | None
    rerun_as: str | None = None
    parent: ParentOf | None = None
    definition: str | None = None
    labels: dict[str, str] | None = None
    schedule: str | None = None
    scheduled_at: str | None = None
    concurrency: Concurrency | None = None


async def list_workflows(request: Request) -> Response:
    """List executions, the newest first."""
    query = read_query(request, ListQuery)
    filters = Filters(
        frozenset(query.status),
        query.name,
        query.handler,
        query.submitted_after if query.since is None else query.since,
        query.submitted_before if query.until is None else query.until,
        tuple(query.label),
        query.roots,
    )
    store = shared_of(request.app).store
    after = read_cursor(query.cursor, is_execution_id)
    page = await store.executions.listing.page(filters, query.limit, after)
    field_names = query.fields or _ROW_FIELDS
    return json_response(
        WorkflowPage.model_construct(
            workflows=[
                {name: fields[name] for name in field_names}
                for fields in map(row_fields, page.rows)
            ],
            next_cursor=write_cursor(page.next_id),
        )
    )


def row_fields(row: ExecutionRow) -> dict[str, Any]:
    """A row of a list with all its fields."""
    fields: dict[str, Any] = {name: getattr(row, name) for name in _ROW_FIELDS}
    return fields | {"labels": dict(one.split("=", 1) for one in sorted(row.labels))}


@whole
async def show_summary(request: Request) -> Response:
    """Show an execution with its nodes counted, what it has used, and why it failed."""
    execution_id = requested_execution_id(request)
    store = shared_of(request.app).store
    row, details = await store.executions.listing.execution(execution_id)
    plan = await shared_of(request.app).plans.load(execution_id, "")
    states = await store.nodes.states(execution_id, list(plan.nodes))
    _, kin, origin = await store.executions.status_and_origin(execution_id)
    parent = ParentOf(execution_id=kin.parent_id, node_id=kin.node_id) if kin else None
    place = await store.lifecycle.places.find(execution_id) if plan.concurrency else None
    said = {name: getattr(origin, name) or None for name in _ORIGIN_FIELDS} | {
        "rerun_as": details.rerun_as,
        "parent": parent,
        "concurrency": place and _concurrency(place),
    }
    summary = WorkflowSummary(
        **row_fields(row) | said,
        counts=Counter(str(state or CORRUPT) for state in states.values()),
        usage=Usage(
            calls=details.usage.calls,
            prompt_tokens=details.usage.prompt,
            completion_tokens=details.usage.completion,
            total_tokens=details.usage.total,
        ),
        budget=_budget(plan, details),
        input=await effective_input(store, plan, execution_id) or None,
        error=details.error or (details.failure if row.status is ExecutionState.FAILED else None),
        cancelling=details.is_cancelling,
        callback=await _callback(store, row) if plan.has_callback else None,
    )
    fields = {name: one for name, one in summary.__dict__.items() if said.get(name, name)}
    return Response(orjson.dumps(fields, default=vars), media_type="application/json")


def _concurrency(place: Place) -> Concurrency:
    return Concurrency(
        key=place.key or None,
        max=place.max,
        when_full=place.when_full,
        waiting_since_ms=place.since_ms,
        ahead=place.ahead,
        holders=list(place.holders),
    )


def _budget(plan: Plan, details: Details) -> Budget | None:
    if plan.budget_tokens is None:
        return None
    return Budget(
        tokens=plan.budget_tokens, spent=details.usage.spent, reserved=details.usage.reserved
    )


async def _callback(store: Store, row: ExecutionRow) -> CallbackDelivery:
    callback = (await read_definition(store, row.execution_id)).get("callback")
    return await read_delivery(store, row.execution_id, callback)


async def show_definition(request: Request) -> Response:
    """Show the workflow as it was submitted; a callback's secret is hidden."""
    execution_id = requested_execution_id(request)
    store = shared_of(request.app).store
    await store.executions.execution_status(execution_id)
    plan = await shared_of(request.app).plans.load(execution_id, "")
    if not plan.has_callback:
        written = await store.executions.definition(execution_id)
        return Response(written, media_type="application/json")
    definition = without_secrets(await read_definition(store, execution_id))
    return Response(orjson.dumps(definition), media_type="application/json")


def without_secrets(definition: dict[str, Any]) -> dict[str, Any]:
    """The definition as it may be shown: a secret that stands in its callback is hidden."""
    callback = definition.get("callback")
    if isinstance(callback, dict) and isinstance(callback.get("secret"), str):
        return {**definition, "callback": {**callback, "secret": HIDDEN}}
    return definition


_PROBLEMS = ("unknown_execution", "corrupt_execution", "store_unavailable")

ROUTES = [
    Endpoint(
        "GET",
        "/workflows",
        list_workflows,
        scope="read",
        answers={200: WorkflowPage},
        problems=("invalid_request", "corrupt_store", "store_unavailable"),
        query=ListQuery,
    ),
    Endpoint(
        "GET",
        "/workflows/{execution_id}/summary",
        show_summary,
        scope="read",
        answers={200: WorkflowSummary},
        problems=_PROBLEMS,
    ),
    Endpoint(
        "GET",
        "/workflows/{execution_id}/definition",
        show_definition,
        scope="read",
        answers={200: WorkflowDefinition},
        problems=_PROBLEMS,
    ),
]
