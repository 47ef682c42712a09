"""Turn whatever goes wrong into a problem document (RFC 9457); the one place to choose a status.

An error nobody foresaw is logged with its traceback, and answered with a 500 that says as little as
can be said; only in development, and with debug on, has the answer the traceback too.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Match
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flowd.errors import (
    AlreadyDecided,
    FlowdError,
    InvalidRequest,
    InvalidWorkflow,
    Problem,
)
from flowd.log import get_logger
from flowd.redaction import REDACTOR
from flowd.workflow.concurrency import LimitReached

log = get_logger(__name__)

MEDIA_TYPE = "application/problem+json"
# How many problems the sentence in `detail` names; `errors` lists them all.
DETAIL_PROBLEMS_MAX = 3
TEXT_CHARS_SHOWN_MAX = 128
TRACE_CHARS_MAX = 16_000


@dataclass(frozen=True, slots=True)
class Kind:
    """How an error with a certain code is answered. `retry_after_s` is None for no header."""

    status: int
    title: str
    retry_after_s: int | None = None


_DEFECT = Kind(500, "Internal error")

# Every public code there is. A test walks the error tree and fails on a code that is missing here.
KINDS: Mapping[str, Kind] = {
    # What the client can mend.
    "invalid_workflow": Kind(400, "Invalid workflow"),
    "invalid_request": Kind(400, "Invalid request"),
    "bad_request": Kind(400, "Bad request"),
    "unauthenticated": Kind(401, "No valid token"),
    "forbidden": Kind(403, "Not allowed with this token"),
    "cross_site": Kind(403, "Sent by a page of another site"),
    "unknown_execution": Kind(404, "Unknown execution"),
    "not_found": Kind(404, "Not found"),
    "no_callback": Kind(404, "No callback"),
    "method_not_allowed": Kind(405, "Method not allowed"),
    "unknown_node": Kind(404, "Unknown node"),
    "unknown_topic": Kind(404, "Unknown topic"),
    "unknown_definition": Kind(404, "Unknown definition"),
    "output_failed": Kind(409, "Output cannot be made"),
    "definition_in_use": Kind(409, "Definition in use"),
    "unknown_schedule": Kind(404, "Unknown schedule"),
    "unknown_limit": Kind(404, "Unknown limit"),
    "schedule_busy": Kind(409, "Schedule is busy"),
    "limit_reached": Kind(409, "Limit reached"),
    "unknown_dead_letter": Kind(404, "Unknown dead letter"),
    "no_signal": Kind(404, "Takes no signal"),
    "no_map": Kind(404, "Has no items"),
    "wrong_state": Kind(409, "Wrong state"),
    "already_decided": Kind(409, "Already decided"),
    "idempotency_mismatch": Kind(422, "Idempotency key used before"),
    "body_too_slow": Kind(408, "Body too slow"),
    "body_too_large": Kind(413, "Body too large"),
    "results_too_large": Kind(413, "Results too large"),
    "bad_host": Kind(421, "Not for this host"),
    "head_too_large": Kind(431, "Request head too large"),
    # What passes: the same request may be sent again.
    "rate_limited": Kind(429, "Too many requests", retry_after_s=1),
    "too_many_connections": Kind(503, "Too many connections", retry_after_s=1),
    "stopping": Kind(503, "Stopping", retry_after_s=1),
    "store_unavailable": Kind(503, "Store unavailable", retry_after_s=1),
    "missing_script": Kind(503, "Store unavailable", retry_after_s=1),
    "missing_group": Kind(503, "Store unavailable", retry_after_s=1),
    "store_full": Kind(503, "Store full", retry_after_s=10),
    "not_replicated": Kind(503, "Not replicated", retry_after_s=1),
    "store_read_only": Kind(503, "Store is read-only", retry_after_s=10),
    "not_ready": Kind(503, "Not ready", retry_after_s=1),
    "older_process": Kind(503, "An older process is enrolled", retry_after_s=10),
    # What a person has to look at.
    "internal": _DEFECT,
    "store_failed": _DEFECT,
    "wrong_type": _DEFECT,
    "corrupt_store": Kind(500, "Corrupt store"),
    "corrupt_execution": Kind(500, "Corrupt execution"),
    # What no request should ever meet.
    "invalid_settings": _DEFECT,
    "template_failed": _DEFECT,
    "took_too_much": _DEFECT,
    "handler_failed": _DEFECT,
    "retry": _DEFECT,
    "skip_node": _DEFECT,
    "wait": _DEFECT,
    "wait_for": _DEFECT,
    "dependency_failed": _DEFECT,
    "not_sent": _DEFECT,
    "fail": _DEFECT,
    "bad_handlers": _DEFECT,
    "unknown_handler": _DEFECT,
    "lease_lost": _DEFECT,
    "server_failed": _DEFECT,
    "already_running": _DEFECT,
    "crash_loop": _DEFECT,
}

_CODES_BY_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}
_INTERNAL_DETAIL = "flowd could not answer this request because of a defect; its log says more"


def problem_document(
    code: str, detail: str, problems: Sequence[Problem] = (), **more: Any
) -> bytes:
    """The body. Without `problems`, the detail is the only one."""
    kind = KINDS[code]
    document = {
        "type": f"urn:flowd:problem:{code}",
        "title": kind.title,
        "status": kind.status,
        "detail": detail,
        "code": code,
        "errors": [
            {"path": problem.path, "code": problem.code, "message": problem.message}
            for problem in problems or (Problem("", code, detail),)
        ],
    }
    return orjson.dumps(document | more)


def as_document(error: FlowdError) -> Any:
    """The body as a value, for an answer that holds others too."""
    problems = error.problems if isinstance(error, InvalidWorkflow | InvalidRequest) else ()
    detail = summarize(problems) if problems else str(error)
    return orjson.loads(problem_document(error.code, detail, problems))


def limit_facts(error: LimitReached) -> dict[str, Any]:
    """What a program reads of it."""
    facts: dict[str, Any] = {"holders": list(error.holders)}
    if error.execution_ids is not None:
        facts["execution_ids"] = list(error.execution_ids)
    return facts


def problem_response(
    code: str,
    detail: str,
    problems: Sequence[Problem] = (),
    headers: Mapping[str, str] | None = None,
    **more: Any,
) -> Response:
    kind = KINDS[code]
    sent = dict(headers or {})
    if kind.retry_after_s is not None:
        sent.setdefault("retry-after", str(kind.retry_after_s))
    if code in ("body_too_slow", "body_too_large"):
        # The rest of the body is not read: no further request can follow it.
        sent["connection"] = "close"
    document = problem_document(code, detail, problems, **more)
    return Response(document, kind.status, sent, MEDIA_TYPE)


def summarize(problems: Sequence[Problem]) -> str:
    """One sentence on all problems. It names cycles first, because clients look for the word."""
    if len(problems) == 1:
        return str(problems[0])
    first = sorted(problems, key=lambda problem: problem.code != "cycle")[:DETAIL_PROBLEMS_MAX]
    count = f"{len(problems)} problems"
    named = "; ".join(str(problem) for problem in first)
    return f"{count}, among them: {named}" if len(problems) > len(first) else f"{count}: {named}"


async def _answer_flowd_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, FlowdError)
    if isinstance(error, InvalidWorkflow | InvalidRequest):
        return problem_response(error.code, summarize(error.problems), error.problems)
    if isinstance(error, AlreadyDecided):
        return problem_response(error.code, str(error), decision=error.decision)
    if isinstance(error, LimitReached):
        return problem_response(error.code, str(error), **limit_facts(error))
    kind = KINDS.get(error.code, _DEFECT)
    if kind.status != 500:
        return problem_response(error.code, str(error))
    # The text of a defect may tell a stranger too much; that of a corrupt execution helps.
    if kind is _DEFECT:
        raise error
    _log_failure(request.scope, error)
    return problem_response(error.code, str(error))


async def _answer_http_exception(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = _CODES_BY_STATUS.get(error.status_code, "bad_request")
    method = request.method
    path = request.scope["path"][:TEXT_CHARS_SHOWN_MAX]
    headers = dict(error.headers or {})
    if code == "not_found":
        detail = f"there is nothing at {path!r}{_path_hint(path)}"
    elif code == "method_not_allowed":
        headers["Allow"] = ", ".join(sorted(_allowed_methods(request)))
        detail = f"{method} is not allowed at {path!r}; use {headers.get('Allow', 'another')}"
    else:
        detail = error.detail
    return problem_response(code, detail, headers=headers)


def _path_hint(path: str) -> str:
    if path == "/":
        return "; /docs describes this API"
    return "; leave out the slash at its end" if path.endswith("/") else ""


def _allowed_methods(request: Request) -> set[str]:
    """Starlette names those of the first route of this path only."""
    scope = {**request.scope, "path_params": {}}
    return {
        method
        for route in request.app.routes
        if route.matches(scope)[0] is not Match.NONE
        for method in route.methods or ()
    }


async def _answer_nobody(_request: Request, _error: Exception) -> Response:
    # The client is gone; the answer is never sent.
    return problem_response("bad_request", "the connection was closed before the body had ended")


ErrorHandler = Callable[[Request, Exception], Awaitable[Response]]

EXCEPTION_HANDLERS: Mapping[type, ErrorHandler] = {
    FlowdError: _answer_flowd_error,
    HTTPException: _answer_http_exception,
    ClientDisconnect: _answer_nobody,
}


_NO_STORE: Final = (b"cache-control", b"no-store")


class ErrorAnswers:
    """Answers what is raised by all it wraps, foreseen or not. No answer is to be kept by anybody
    that does not say itself that it may."""

    def __init__(self, app: ASGIApp, shows_tracebacks: bool = False) -> None:
        self._app = app
        self._shows_tracebacks = shows_tracebacks

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        has_started = False

        async def watch(message: Message) -> None:
            nonlocal has_started
            if not has_started:
                has_started = True
                headers = message["headers"]
                if not any(name == b"cache-control" for name, _ in headers):
                    headers.append(_NO_STORE)
            await send(message)

        try:
            await self._app(scope, receive, watch)
        except asyncio.CancelledError:
            # The server cancels what has not been answered at the end of the grace period.
            if has_started:
                raise
            detail = "flowd is stopping; send the request again"
            await problem_response("stopping", detail)(scope, receive, watch)
        except Exception as error:
            if has_started:
                _log_failure(scope, error)
                raise
            response = await self._response_to(Request(scope, receive), error)
            await response(scope, receive, watch)

    async def _response_to(self, request: Request, error: Exception) -> Response:
        kinds = (one for one in type(error).__mro__ if one in EXCEPTION_HANDLERS)
        if kind := next(kinds, None):
            try:
                return await EXCEPTION_HANDLERS[kind](request, error)
            except Exception as unforeseen:  # noqa: BLE001 - whatever it is, it is answered below
                error = unforeseen
        _log_failure(request.scope, error)
        trace = _trace_of(error) if self._shows_tracebacks else ""
        more: dict[str, Any] = {"traceback": trace} if trace else {}
        document = problem_document("internal", _INTERNAL_DETAIL, **more)
        return Response(document, 500, media_type=MEDIA_TYPE)


def _trace_of(error: Exception) -> str:
    """Its end, where the defect is."""
    try:
        text = "".join(traceback.format_exception(error)).rstrip()
    except Exception:  # noqa: BLE001 - somebody else's __str__
        return ""
    text = text.encode("utf-8", "backslashreplace").decode()
    return REDACTOR.text(text)[-TRACE_CHARS_MAX:]


def _log_failure(scope: Scope, error: Exception) -> None:
    log.error(
        "request.failed",
        method=scope["method"],
        path=scope["path"][:TEXT_CHARS_SHOWN_MAX],
        error=error,
    )
