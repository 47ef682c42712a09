"""Read what nodes have said, and follow what they say: as JSON, as text, or as events."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any, Final, Literal

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.model import Model
from flowd.api.contract.query import read_last_event, read_query
from flowd.api.contract.route import Endpoint
from flowd.api.contract.whole import whole
from flowd.api.http.event_stream import MEDIA_TYPE, EventStream
from flowd.api.http.responses import json_response, requested_execution_id
from flowd.api.log_feed import (
    ExecutionLogSubscription,
    LogPosition,
    NodeLogSubscription,
    format_log_event,
    parse_position,
    shown_line,
)
from flowd.api.shared import shared_of
from flowd.errors import UnknownNode
from flowd.orchestrator.items import find_item
from flowd.store import Store
from flowd.store.logs import Attempt, LogLine, LogName

TEXT: Final = "text/plain; charset=utf-8"
LINES_DEFAULT: Final = 1000
LINES_MAX: Final = 10_000
# Of the text in one answer about an execution.
_CHARS_MAX: Final = 4 * 2**20
_ESCAPED: Final = {code: f"\\x{code:02x}" for code in (*range(9), *range(10, 32), *range(127, 160))}


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class NodeAttempt(_Body):
    """Null is what is not known: a worker that died took it along."""

    attempt: int
    worker: str | None
    queued_ms: int | None
    started_ms: int | None
    finished_ms: int | None
    duration_ms: int | None
    error: str | None
    has_log: bool


class NodeAttempts(_Body):
    """The last 20, the oldest first."""

    execution_id: str
    node_id: str
    attempts: list[NodeAttempt]


class NodeLogLine(_Body):
    """`stream` is `stdout` or `stderr`, the level of what was logged, `call` or `traceback`."""

    at_ms: int
    stream: str
    text: str


class ExecutionLogLine(NodeLogLine):
    node_id: str
    attempt: int


class NodeLog(_Body):
    """What an attempt has said; `attempt` is null where none has said anything.

    `dropped` lines went between its begin and its end: `dropped_at` is the index of the line
    behind them.
    """

    execution_id: str
    node_id: str
    attempt: int | None
    lines: list[NodeLogLine]
    dropped: int
    dropped_at: int | None


class ExecutionLog(_Body):
    """The last lines of all nodes, by time; `dropped` is how many were too many for all logs of an
    execution."""

    execution_id: str
    lines: list[ExecutionLogLine]
    dropped: int


class ExecutionLogQuery(Model):
    lines: int = Field(
        default=LINES_DEFAULT, ge=1, le=LINES_MAX, description="only the last so many"
    )
    follow: bool = Field(default=False, description="as events, until the end")
    last_event_id: str = Field(
        default="",
        description="as the header `Last-Event-ID`",
        json_schema_extra={"pattern": "^([0-9]{1,15}-[0-9]{1,9})?$"},
    )


class NodeLogQuery(ExecutionLogQuery):
    lines: int = Field(default=LINES_MAX, ge=1, le=LINES_MAX, description="only the last so many")
    attempt: int | None = Field(
        default=None,
        ge=1,
        le=999_999_999,
        description="of this attempt; by default of the newest that has said something",
    )


@whole
async def show_node_logs(request: Request) -> Response:
    """Read what a node has said, or follow what it says until it ends."""
    execution_id, node_id = await requested_node(request)
    query = read_query(request, NodeLogQuery)
    shared = shared_of(request.app)
    after = _after(request, query)
    if _wants(request, query) == "events":
        subscription = NodeLogSubscription(
            shared.store, shared.feed, execution_id, node_id, query.attempt, after
        )
        return EventStream(subscription, write=format_log_event)
    attempt = query.attempt or await _newest_with_log(shared.store, execution_id, node_id)
    lines: list[LogLine] = []
    dropped, dropped_at = 0, None
    if attempt is not None:
        name = LogName(node_id, attempt)
        lines, dropped, dropped_at = await _whole_log(shared.store, execution_id, name)
    cut = max(0, len(lines) - query.lines)
    lines = lines[cut:]
    dropped_at = None if dropped_at is None else max(0, dropped_at - cut)
    if _wants(request, query) == "json":
        return json_response(
            NodeLog.model_construct(
                execution_id=execution_id,
                node_id=node_id,
                attempt=attempt,
                lines=[shown_line(one) for one in lines],
                dropped=dropped,
                dropped_at=dropped_at,
            )
        )
    return _text(_with_gap([_text_line(one) for one in lines], dropped, dropped_at))


@whole
async def show_execution_logs(request: Request) -> Response:
    """Read the last lines of all nodes of an execution, or follow them until it ends."""
    execution_id = requested_execution_id(request)
    query = read_query(request, ExecutionLogQuery)
    shared = shared_of(request.app)
    await shared.store.executions.execution_status(execution_id)
    after = _after(request, query)
    if _wants(request, query) == "events":
        subscription = ExecutionLogSubscription(shared.store, shared.feed, execution_id, after)
        return EventStream(subscription, write=format_log_event)
    found = await _last_lines(shared.store, execution_id, query.lines)
    dropped = await shared.store.nodes.logs.dropped(execution_id)
    if _wants(request, query) == "json":
        lines = [
            {**shown_line(line), "node_id": name.node_id, "attempt": name.attempt}
            for name, line in found
        ]
        return json_response(
            ExecutionLog.model_construct(execution_id=execution_id, lines=lines, dropped=dropped)
        )
    texts = [_text_line(line, f"{name.node_id}#{name.attempt} ") for name, line in found]
    return _text(_with_gap(texts, dropped, len(texts) if dropped else None))


@whole
async def list_attempts(request: Request) -> Response:
    """List the last attempts of a node: when, where, and what they failed of."""
    execution_id, node_id = await requested_node(request)
    attempts = await attempts_of(shared_of(request.app).store, execution_id, node_id)
    return json_response(
        NodeAttempts.model_construct(execution_id=execution_id, node_id=node_id, attempts=attempts)
    )


async def requested_node(request: Request) -> tuple[str, str]:
    """Raises UnknownExecution, or UnknownNode for what is neither a node nor an item."""
    execution_id = requested_execution_id(request)
    node_id = str(request.path_params["node_id"])
    shared = shared_of(request.app)
    await shared.store.executions.execution_status(execution_id)
    node = (await shared.plans.load(execution_id, "")).find(node_id)
    is_known = node is not None
    if node is not None and node.is_item:
        is_known = await find_item(shared.store, execution_id, node_id) is not None
    if not is_known:
        raise UnknownNode(execution_id, node_id[:128])
    return execution_id, node_id


async def attempts_of(store: Store, execution_id: str, node_id: str) -> list[dict[str, Any]]:
    attempts = await store.nodes.logs.attempts(execution_id, node_id)
    if not attempts:
        return []
    shown = [_shown_attempt(one) for one in attempts]
    # What the newest failed of stands where the others' went when they were over.
    newest = shown[-1]
    newest["error"] = (await store.nodes.errors(execution_id, [node_id]))[node_id]
    if newest["error"] is None:
        standing = (await store.nodes.retries(execution_id, [node_id])).get(node_id)
        (state,) = (await store.nodes.states(execution_id, [node_id])).values()
        if standing is not None and state == "RETRYING":
            newest["error"] = standing.error
    return shown


def _shown_attempt(one: Attempt) -> dict[str, Any]:
    record = one.record
    return {
        "attempt": record.attempt,
        "worker": record.worker,
        "queued_ms": record.queued_ms,
        "started_ms": record.started_ms,
        "finished_ms": record.finished_ms,
        "duration_ms": record.ran_ms,
        "error": one.error,
        "has_log": one.has_log,
    }


async def _newest_with_log(store: Store, execution_id: str, node_id: str) -> int | None:
    attempts = await store.nodes.logs.attempts(execution_id, node_id)
    return next((one.record.attempt for one in reversed(attempts) if one.has_log), None)


async def _whole_log(
    store: Store, execution_id: str, name: LogName
) -> tuple[list[LogLine], int, int | None]:
    """Its lines, how many are gone, and the index of the line behind those."""
    lines: list[LogLine] = []
    after, dropped, dropped_at = 0, 0, None
    while True:
        some = await store.nodes.logs.read(execution_id, name, after)
        if some.gaps and dropped_at is None:
            behind = (at for at, line in enumerate(some.lines) if line.number >= some.gaps[0])
            dropped_at = len(lines) + next(behind, len(some.lines))
        lines += some.lines
        dropped = max(dropped, some.dropped)
        if some.is_last:
            return lines, dropped, dropped_at if dropped else None
        after = some.last


async def _last_lines(
    store: Store, execution_id: str, lines_max: int
) -> list[tuple[LogName, LogLine]]:
    """The last lines of all logs of an execution, as far as one answer bears them."""
    found: list[tuple[LogName, LogLine]] = []
    async for name, grown_ms in store.nodes.logs.newest_first(execution_id):
        if len(found) >= lines_max and grown_ms < found[-lines_max][1].at_ms:
            break
        lines, _, _ = await _whole_log(store, execution_id, name)
        found += [(name, line) for line in lines]
        found.sort(key=lambda pair: pair[1].at_ms)
        del found[: max(0, len(found) - lines_max)]
    chars = 0
    for at in range(len(found) - 1, -1, -1):
        chars += len(found[at][1].text)
        if chars > _CHARS_MAX:
            return found[at + 1 :]
    return found


def _wants(request: Request, query: ExecutionLogQuery) -> Literal["events", "json", "text"]:
    accepted = request.headers.get("accept", "")
    if query.follow or MEDIA_TYPE in accepted:
        return "events"
    return "json" if "application/json" in accepted else "text"


def _after(request: Request, query: ExecutionLogQuery) -> LogPosition | None:
    return read_last_event(request, query.last_event_id, parse_position, "a line, such as 1-42")


def _text_line(line: LogLine, name: str = "") -> str:
    at = datetime.fromtimestamp(line.at_ms / 1000, UTC)
    text = line.text.translate(_ESCAPED)
    return f"{at:%Y-%m-%dT%H:%M:%S}.{line.at_ms % 1000:03d}Z {name}{line.stream} {text}\n"


def _with_gap(texts: list[str], dropped: int, dropped_at: int | None) -> Iterator[str]:
    yield from texts[:dropped_at]
    if dropped_at is not None:
        yield f"… {dropped:,} lines are not kept\n"
        yield from texts[dropped_at:]


def _text(lines: Iterator[str]) -> Response:
    return Response("".join(lines).encode("utf-8", "replace"), media_type=TEXT)


_HEADERS = {
    "Accept": "`application/json`, `text/event-stream`; anything else is answered with text",
    "Last-Event-ID": "the id of the last event you saw; later ones are sent",
}
_PROBLEMS = ("unknown_execution", "corrupt_execution", "store_unavailable")

ROUTES = [
    Endpoint(
        "GET",
        "/workflows/{execution_id}/nodes/{node_id}/logs",
        show_node_logs,
        scope="read",
        answers={200: (NodeLog, TEXT, MEDIA_TYPE)},
        problems=(*_PROBLEMS, "unknown_node", "invalid_request"),
        query=NodeLogQuery,
        headers=_HEADERS,
    ),
    Endpoint(
        "GET",
        "/workflows/{execution_id}/logs",
        show_execution_logs,
        scope="read",
        answers={200: (ExecutionLog, TEXT, MEDIA_TYPE)},
        problems=(*_PROBLEMS, "invalid_request"),
        query=ExecutionLogQuery,
        headers=_HEADERS,
    ),
    Endpoint(
        "GET",
        "/workflows/{execution_id}/nodes/{node_id}/attempts",
        list_attempts,
        scope="read",
        answers={200: NodeAttempts},
        problems=(*_PROBLEMS, "unknown_node"),
    ),
]
