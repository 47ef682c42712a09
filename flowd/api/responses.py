"""What the endpoints share: the id a request names, and a body as a response."""

from __future__ import annotations

import orjson
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response

from flowd.errors import UnknownExecution
from flowd.store.redis_keys import is_execution_id


def requested_execution_id(request: Request) -> str:
    """The id in the path. What cannot be an id is unknown without a look into the store."""
    execution_id = str(request.path_params["execution_id"])
    if not is_execution_id(execution_id):
        raise UnknownExecution(execution_id[:128])
    return execution_id


def json_response(body: BaseModel, status: int = 200) -> Response:
    # The fields are JSON or models; dumping the model would walk all outputs once more.
    return Response(
        orjson.dumps(body.__dict__, default=vars), status, media_type="application/json"
    )
