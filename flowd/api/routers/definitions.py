"""Save definitions under names, look at their versions, and run them."""

from __future__ import annotations

from typing import Annotated, Any, Final

import orjson
from pydantic import ConfigDict, Field, model_validator
from pydantic_core import PydanticCustomError
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.cursor import read_cursor, write_cursor
from flowd.api.contract.model import Model
from flowd.api.contract.query import read_query
from flowd.api.contract.route import Endpoint
from flowd.api.contract.small_body import SmallBody, read_small_body
from flowd.api.http.body import read_body
from flowd.api.http.responses import (
    IDEMPOTENCY_HEADER,
    TRACEPARENT_HEADER,
    json_response,
    requested_traceparent,
)
from flowd.api.routers.listing import Label, without_secrets
from flowd.api.shared import Shared, claim_execution, shared_of
from flowd.errors import InvalidRequest, Problem, StoreUnavailable, UnknownDefinition
from flowd.log import get_logger
from flowd.orchestrator.pinning import pinned
from flowd.orchestrator.runs import ids_of, run_each
from flowd.orchestrator.saved import SavedWorkflow
from flowd.store.executions import now_ms
from flowd.store.making import Pin, Runs
from flowd.store.origins import Origin
from flowd.store.saved import About, SavedRow, Version
from flowd.workflow.children import called_by
from flowd.workflow.concurrency import place_of
from flowd.workflow.definition import Labels, WorkflowDefinition
from flowd.workflow.ids import NAME_RULE, is_name
from flowd.workflow.report import quote

LIMIT_DEFAULT = 50
LIMIT_MAX = 1000
INPUTS_MAX: Final = 1_000
# Of all that one request runs together.
NODES_MAX: Final = 100_000
BYTES_MAX: Final = 256 * 1024 * 1024
# How often a run begins anew because a new version was saved meanwhile.
_CHANGES_MAX: Final = 10

log = get_logger(__name__)


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class SavedVersion(_Body):
    name: str
    version: int
    message: str


class DefinitionVersion(_Body):
    version: int
    saved_ms: int
    nodes: int


class DefinitionRow(_Body):
    """A saved definition, and its latest version. Null is what is damaged."""

    name: str
    version: int | None
    saved_ms: int | None
    nodes: int | None
    labels: dict[str, str]


class DefinitionPage(_Body):
    definitions: list[DefinitionRow]
    next_cursor: str | None


class VersionPage(_Body):
    """The newest first."""

    name: str
    versions: list[DefinitionVersion]
    next_cursor: str | None


class SavedDefinition(_Body):
    """One version; `latest` is the number of the newest."""

    name: str
    version: int
    latest: int
    saved_ms: int
    definition: dict[str, Any]


class DeletedDefinition(_Body):
    name: str
    message: str


class Ran(_Body):
    execution_id: str
    message: str


class RanMany(_Body):
    execution_ids: list[str]


class VersionsQuery(Model):
    limit: int = Field(default=LIMIT_DEFAULT, ge=1, le=LIMIT_MAX)
    cursor: str | None = Field(default=None, description="`next_cursor` of the previous page")


class DefinitionsQuery(VersionsQuery):
    label: list[Label] = Field(
        default_factory=list,
        description="only with this label, `name:value`; with all, where there are several",
    )


class VersionQuery(Model):
    version: int | None = Field(default=None, ge=1, le=10**9 - 1, description="default: the latest")


class RunBody(SmallBody):
    input: dict[str, Any] | None = Field(
        default=None, description="values for `input`; they override the workflow's own key by key"
    )
    inputs: Annotated[list[dict[str, Any]], Field(min_length=1, max_length=INPUTS_MAX)] | None = (
        Field(default=None, description="in place of input: an execution for each of these")
    )
    version: int | None = Field(default=None, ge=1, le=10**9 - 1, description="default: the latest")

    labels: Labels = Field(default={}, description="beside those of the definition, and over them")

    @model_validator(mode="after")
    def _says_one_thing(self) -> RunBody:
        if self.input is not None and self.inputs is not None:
            raise PydanticCustomError("run", "give either input or inputs")
        return self


def requested_name(request: Request) -> str:
    """The name in the path. What cannot be one is unknown without a look into the store."""
    name = str(request.path_params["name"])
    if not is_name(name):
        raise UnknownDefinition(name[:128])
    return name


async def put_definition(request: Request) -> Response:
    """Save a workflow under a name, as a new version; what equals the latest stays that version."""
    shared, name = shared_of(request.app), str(request.path_params["name"])
    if not is_name(name):
        message = f"bad name {quote(name)}; use {NAME_RULE}"
        raise InvalidRequest([Problem("path.name", "bad_name", message)])
    workflow = await shared.check_workflow(await read_body(request, shared.body_bytes_max))
    outline = workflow.outline
    handlers = shared.check_workflow.handlers_digest
    calls = called_by(orjson.loads(workflow.definition)) if outline.has_children else ()
    about = About(now_ms(), len(outline.nodes), handlers, outline.labels, calls)
    version, is_new = await shared.store.saved.put(name, workflow.definition, outline.digest, about)
    if is_new:
        log.info("definition.saved", name=name, version=version)
    message = "Definition saved" if is_new else "Definition unchanged"
    answer = SavedVersion(name=name, version=version, message=message)
    return json_response(answer, 201 if is_new else 200)


async def list_definitions(request: Request) -> Response:
    """List the saved definitions by name, each with its latest version."""
    query = read_query(request, DefinitionsQuery)
    saved = shared_of(request.app).store.saved
    labels = dict(one.split("=", 1) for one in query.label)
    rows, last = await saved.page(read_cursor(query.cursor, is_name), query.limit, labels)
    return json_response(
        DefinitionPage(
            definitions=[
                DefinitionRow(name=one.name, labels=_labels(one), **_shown(one.latest))
                for one in rows
            ],
            next_cursor=write_cursor(last),
        )
    )


def _labels(row: SavedRow) -> dict[str, str]:
    return dict(row.latest.about.labels) if row.latest else {}


def _shown(version: Version | None) -> dict[str, Any]:
    if version is None:
        return {"version": None, "saved_ms": None, "nodes": None}
    about = version.about
    return {"version": version.version, "saved_ms": about.saved_ms, "nodes": about.nodes}


async def show_saved_definition(request: Request) -> Response:
    """Show a saved definition, the latest version or the one asked for; secrets are hidden."""
    query = read_query(request, VersionQuery)
    found = await shared_of(request.app).store.saved.find(requested_name(request), query.version)
    return json_response(
        SavedDefinition(
            name=found.name,
            version=found.version,
            latest=found.latest,
            saved_ms=found.about.saved_ms,
            definition=without_secrets(orjson.loads(found.definition)),
        )
    )


async def list_versions(request: Request) -> Response:
    """List the versions of a saved definition, the newest first."""
    query, name = read_query(request, VersionsQuery), requested_name(request)
    cursor = read_cursor(query.cursor, lambda text: text.isascii() and text.isdecimal())
    versions, last = await shared_of(request.app).store.saved.versions(
        name, int(cursor) if cursor else None, query.limit
    )
    return json_response(
        VersionPage(
            name=name,
            versions=[DefinitionVersion(**_shown(one)) for one in versions],
            next_cursor=write_cursor(None if last is None else str(last)),
        )
    )


async def delete_definition(request: Request) -> Response:
    """Delete a saved definition with all its versions, unless a schedule or another one runs it.

    Its executions stay: each has a copy.
    """
    name = requested_name(request)
    await shared_of(request.app).store.saved.delete(name)
    log.info("definition.deleted", name=name)
    return json_response(DeletedDefinition(name=name, message="Definition deleted"))


async def run_definition(request: Request) -> Response:
    """Run a saved definition: make and start an execution in one step, or one for each input.

    With an Idempotency-Key the same request makes each of them once, however often it is sent.
    """
    shared, name = shared_of(request.app), requested_name(request)
    body, text = await read_small_body(request, RunBody)
    given = [body.input] if body.inputs is None else body.inputs
    inputs = [orjson.dumps(one) if one else b"" for one in given]
    saved = await _load(shared, name, body)
    claimed = await claim_execution(request, b"run " + name.encode() + b" " + text)
    claimant = claimed.execution_id
    ids = [claimant] if body.inputs is None else ids_of(claimant, len(inputs))
    runs = Runs(
        list(zip(ids, inputs, strict=True)),
        claimed.key_digest,
        "" if body.inputs is None else claimant,
        requested_traceparent(request),
    )
    await _run(shared, saved, body, runs)
    if body.inputs is None:
        return json_response(Ran(execution_id=claimant, message="Workflow started"))
    return json_response(RanMany(execution_ids=ids))


async def _load(shared: Shared, name: str, body: RunBody) -> SavedWorkflow:
    """What is to be run. Raises UnknownDefinition, and InvalidRequest where it is not to be run for
    these inputs."""
    saved = await shared.saved.load(name, body.version)
    try:
        await _check_inputs(shared, saved, body)
    except InvalidRequest:
        # What this process knows may be out of date, and another version take them.
        shared.saved.forget(name, body.version)
        fresh = await shared.saved.load(name, body.version)
        if fresh.saved.digest == saved.saved.digest:
            raise
        await _check_inputs(shared, fresh, body)
        return fresh
    return saved


async def _check_inputs(shared: Shared, saved: SavedWorkflow, body: RunBody) -> None:
    _check_size(saved, len(body.inputs or ()))
    inputs = {"input": body.input or {}}
    if body.inputs is not None:
        inputs = {f"inputs[{at}]": one for at, one in enumerate(body.inputs)}
    if saved.input_schema is not None:
        check = shared.check_workflow.expect_inputs_fit
        await check(saved.input_schema, saved.default_input, inputs)
    if saved.outline.concurrency is not None:
        for path, given in inputs.items():
            place_of(saved.outline.concurrency, given, path)


async def _run(shared: Shared, saved: SavedWorkflow, body: RunBody, runs: Runs) -> None:
    name, version = saved.saved.name, body.version
    for _ in range(_CHANGES_MAX):
        number, digest = saved.saved.version, saved.saved.digest
        these = runs._replace(
            origin=Origin(f"{name}@{number}", body.labels),
            pin=Pin(name, number, version is None, digest),
        )
        definition, outline = await pinned(shared.store, saved.saved.definition, saved.outline)
        if await run_each(shared.store, definition, outline, these):
            return
        shared.saved.forget(name, version)
        saved = await _load(shared, name, body)
    raise StoreUnavailable(f"definition {name!r} changes all the time; send it again")


def _check_size(saved: SavedWorkflow, count: int) -> None:
    nodes, size = len(saved.outline.nodes), len(saved.saved.definition)
    for total, most, what in (
        (count * nodes, NODES_MAX, "nodes"),
        (count * size, BYTES_MAX, "bytes of definitions"),
    ):
        if count > 1 and total > most:
            message = (
                f"{count:,} executions have {total:,} {what} together; "
                f"at most {most:,} are run by one request"
            )
            raise InvalidRequest([Problem("inputs", "too_large", message)])


_UNKNOWN = "unknown_definition"

ROUTES = [
    Endpoint(
        "GET",
        "/definitions",
        list_definitions,
        scope="read",
        answers={200: DefinitionPage},
        problems=("invalid_request",),
        query=DefinitionsQuery,
    ),
    Endpoint(
        "PUT",
        "/definitions/{name}",
        put_definition,
        scope="trigger",
        answers={200: SavedVersion, 201: SavedVersion},
        problems=("invalid_workflow", "invalid_request"),
        body=WorkflowDefinition,
    ),
    Endpoint(
        "GET",
        "/definitions/{name}",
        show_saved_definition,
        scope="read",
        answers={200: SavedDefinition},
        problems=(_UNKNOWN, "invalid_request"),
        query=VersionQuery,
    ),
    Endpoint(
        "GET",
        "/definitions/{name}/versions",
        list_versions,
        scope="read",
        answers={200: VersionPage},
        problems=(_UNKNOWN, "invalid_request"),
        query=VersionsQuery,
    ),
    Endpoint(
        "DELETE",
        "/definitions/{name}",
        delete_definition,
        scope="admin",
        answers={200: DeletedDefinition},
        problems=(_UNKNOWN, "definition_in_use"),
    ),
    Endpoint(
        "POST",
        "/definitions/{name}/run",
        run_definition,
        scope="trigger",
        answers={200: (Ran, RanMany)},
        problems=(
            _UNKNOWN,
            "older_process",
            "invalid_workflow",
            "invalid_request",
            "idempotency_mismatch",
            "limit_reached",
        ),
        body=RunBody,
        headers={**IDEMPOTENCY_HEADER, **TRACEPARENT_HEADER},
    ),
]
