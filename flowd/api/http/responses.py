"""What the endpoints share: the id a request names, and a body as a response."""

from __future__ import annotations

import re

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from flowd.errors import InvalidRequest, Problem, UnknownExecution
from flowd.tokens import Token
from flowd.workflow.ids import is_execution_id

# W3C Trace Context: version, trace, parent and flags; later versions may say more behind them.
_TRACEPARENT = re.compile(
    r"(?!ff)[0-9a-f]{2}-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-[!-~]{0,256})?"
)
IDEMPOTENCY_HEADER = {"Idempotency-Key": "the same key and body again: the first answer again"}
KEY_CHARS_MAX = 256
# Where the scope of a request has the token it came with.
CALLER = "flowd.caller"
TRACEPARENT_HEADER = {"traceparent": "the trace to go on with in the calls of its nodes"}


def requested_execution_id(request: Request) -> str:
    """The id in the path. What cannot be an id is unknown without a look into the store."""
    execution_id = str(request.path_params["execution_id"])
    if not is_execution_id(execution_id):
        raise UnknownExecution(execution_id[:128])
    return execution_id


def requested_traceparent(request: Request) -> str:
    """The trace of the caller; empty without one, and for what is none, as the standard has it."""
    header: str = request.headers.get("traceparent", "")
    return header if _TRACEPARENT.fullmatch(header) else ""


def requested_idempotency_key(request: Request) -> str:
    """Empty without one. Raises InvalidRequest."""
    key: str = request.headers.get("idempotency-key", "")
    if len(key) > KEY_CHARS_MAX:
        message = f"the key has {len(key)} characters; at most {KEY_CHARS_MAX} are taken"
        raise InvalidRequest([Problem("headers.Idempotency-Key", "too_long", message)])
    return key


def requested_by(request: Request) -> str | None:
    """The name of the token it came with; None where it needs none."""
    token = token_of(request)
    return token.name if token else None


def token_of(request: Request) -> Token | None:
    """The token it came with; None where it needs none."""
    token: Token | None = request.scope.get(CALLER)
    return token


def json_response(body: BaseModel, status: int = 200) -> Response:
    # The fields are JSON or models; dumping the model would walk all outputs once more.
    return Response(
        orjson.dumps(body.__dict__, default=vars), status, media_type="application/json"
    )
