"""How this flowd is as a whole, what it consists of, and what whoever asks may do."""

from __future__ import annotations

import asyncio
from typing import Any, Literal

from pydantic import ConfigDict
from starlette.requests import Request
from starlette.responses import Response

from flowd import __version__
from flowd.api import supervisor_status
from flowd.api.contract.model import Model
from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import ProblemEntry
from flowd.api.http.responses import json_response, token_of
from flowd.api.shared import shared_of
from flowd.diagnosis import overview
from flowd.handlers import HandlerKind
from flowd.handlers.config_schema import schema_of
from flowd.handlers.registry import Handler
from flowd.store.metrics import Snapshot


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class HealthOverview(_Body):
    """`problems` are those of `/readyz`, `risks` those of the Redis in use."""

    ok: bool
    sentence: str
    problems: list[ProblemEntry]
    risks: list[str]


class QueueOverview(_Body):
    entries: int
    waiting: int
    in_flight: int
    oldest_age_ms: int


class WorkersOverview(_Body):
    live: int
    stalled: int


class RetriesOverview(_Body):
    waiting: int
    due: int


class RedisOverview(_Body):
    """Memory is null where flowd may not ask, its limit 0 where there is none."""

    server: str
    memory_used: int | None
    memory_max: int | None


class NoticeRow(_Body):
    """Null is what it has not, or what nobody knows."""

    execution_id: str | None
    node_id: str | None
    name: str | None
    text: str | None
    at_ms: int | None
    letter_id: str | None


class AttentionOverview(_Body):
    """A kind of thing somebody should look at: how many, null for more than were counted, and a
    few of them."""

    kind: Literal[
        "health", "failed", "missed", "waiting_for_signal", "retrying", "dead_letter", "stuck"
    ]
    count: int | None
    sample: list[NoticeRow]


class Overview(_Body):
    at_ms: int
    version: str
    health: HealthOverview
    executions: dict[str, int]
    queue: QueueOverview
    workers: WorkersOverview
    scheduler_ticked_ms: int | None
    retries: RetriesOverview
    dead_letters: int
    callbacks: int
    events: int
    redis: RedisOverview
    attention: list[AttentionOverview]


class TokenView(_Body):
    """What the token of this request may do; all, where none is `required`."""

    name: str | None
    scope: Literal["read", "trigger", "admin"]
    expires_ms: int | None
    required: bool


class HandlerRow(_Body):
    """`config` is a JSON Schema; null takes anything."""

    name: str
    runs: HandlerKind
    summary: str
    description: str
    config: dict[str, Any] | None


class HandlerList(_Body):
    handlers: list[HandlerRow]


class ProcessList(_Body):
    """The daemon above the API that answers, and its processes as `flowd status -o json` has them;
    null and empty where there is none."""

    pid: int | None
    state: str | None
    uptime_s: float | None
    processes: list[dict[str, Any]]


class WorkerRow(_Body):
    """`why_not` says why it is not alive, `stalled` that it asks for no work and has room; null is
    what a worker has not said of itself."""

    name: str
    host: str | None
    pid: int | None
    queues: list[str] | None
    alive: bool
    why_not: str | None
    in_flight: int
    stalled: str | None


class WorkerList(_Body):
    workers: list[WorkerRow]


async def show_overview(request: Request) -> Response:
    """Show how flowd is: health, counts, the queue, and what somebody should look at."""
    shared = shared_of(request.app)
    seen = await overview.look(shared.store, await shared.readiness())
    snapshot = seen.snapshot
    return json_response(
        Overview(
            at_ms=seen.at_ms,
            version=__version__,
            health=HealthOverview(
                ok=not seen.problems,
                sentence=seen.sentence,
                problems=[
                    ProblemEntry(path=one.path, code=one.code, message=one.message)
                    for one in seen.problems
                ],
                risks=list(seen.risks),
            ),
            executions={str(one): count for one, count in seen.executions.items()},
            queue=QueueOverview(
                entries=snapshot.queue.entries,
                waiting=snapshot.queue.waiting,
                in_flight=snapshot.queue.in_flight,
                oldest_age_ms=snapshot.queue.oldest_age_ms,
            ),
            workers=WorkersOverview(live=snapshot.workers, stalled=seen.stalled),
            scheduler_ticked_ms=seen.scheduler_ticked_ms,
            retries=RetriesOverview(waiting=_retrying(seen), due=snapshot.retries_due),
            dead_letters=snapshot.dead_letters,
            callbacks=snapshot.callbacks,
            events=snapshot.events,
            redis=_redis(seen, snapshot),
            attention=_attention(seen),
        )
    )


def _retrying(seen: overview.Overview) -> int:
    """Of very many that wait until a date nobody looks which of them have failed."""
    retrying = seen.attention.get("retrying")
    count = retrying.total if retrying else 0
    return seen.snapshot.retries if count is None else count


def _redis(seen: overview.Overview, snapshot: Snapshot) -> RedisOverview:
    return RedisOverview(
        server=seen.server,
        memory_used=snapshot.memory_used,
        memory_max=snapshot.memory_max,
    )


def _attention(seen: overview.Overview) -> list[AttentionOverview]:
    return [
        AttentionOverview.model_construct(
            kind=kind,
            count=notices.total,
            sample=[
                NoticeRow(**notice._asdict(), name=seen.names.get(notice.execution_id or ""))
                for notice in notices.sample
            ],
        )
        for kind, notices in seen.attention.items()
    ]


async def show_token(request: Request) -> Response:
    """Show what the token of this request may do, and until when."""
    token = token_of(request)
    if token is None:
        return json_response(TokenView(name=None, scope="admin", expires_ms=None, required=False))
    return json_response(
        TokenView.model_construct(
            name=token.name, scope=token.scope, expires_ms=token.expires_ms, required=True
        )
    )


async def list_handlers(request: Request) -> Response:
    """List the handlers that a workflow may name, with what their configs may hold."""
    shared = shared_of(request.app)
    # A schema takes milliseconds to write down, and stays what it is.
    if shared.handlers is None:
        loaded = [shared.registry.load(name) for name in shared.registry.names()]
        rows = [await asyncio.to_thread(_handler_row, one) for one in loaded]
        shared.handlers = bytes(json_response(HandlerList(handlers=rows)).body)
    return Response(shared.handlers, media_type="application/json")


def _handler_row(handler: Handler) -> HandlerRow:
    return HandlerRow(
        name=handler.name,
        runs=handler.kind,
        summary=handler.description.partition("\n")[0],
        description=handler.description,
        config=None if handler.model is None else schema_of(handler.model),
    )


async def list_processes(request: Request) -> Response:
    """List the processes of the daemon that answers, as `flowd status` does."""
    answer = await supervisor_status.daemon(shared_of(request.app).control_socket)
    return json_response(
        ProcessList.model_construct(
            pid=answer.get("pid"),
            state=answer.get("state"),
            uptime_s=answer.get("uptime_s"),
            processes=answer.get("processes", []),
        )
    )


async def list_workers(request: Request) -> Response:
    """List the workers of all machines, with what they hold."""
    standing = await shared_of(request.app).observer.workers()
    return json_response(
        WorkerList(
            workers=[
                WorkerRow(
                    name=one.name,
                    host=one.owner.host if one.owner else None,
                    pid=one.owner.pid if one.owner else None,
                    queues=list(one.owner.queues) if one.owner else None,
                    alive=one.dead is None,
                    why_not=one.dead,
                    in_flight=one.in_flight,
                    stalled=one.stalled,
                )
                for one in standing
            ]
        )
    )


_STORED = ("store_unavailable",)

ROUTES = [
    Endpoint(
        "GET",
        "/overview",
        show_overview,
        scope="read",
        answers={200: Overview},
        problems=("corrupt_store", *_STORED),
    ),
    Endpoint("GET", "/token", show_token, scope="read", answers={200: TokenView}),
    Endpoint("GET", "/handlers", list_handlers, scope="read", answers={200: HandlerList}),
    Endpoint("GET", "/processes", list_processes, scope="read", answers={200: ProcessList}),
    Endpoint(
        "GET",
        "/workers",
        list_workers,
        scope="read",
        answers={200: WorkerList},
        problems=_STORED,
    ),
]
