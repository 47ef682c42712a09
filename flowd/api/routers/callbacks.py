"""How the callback of an execution goes."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import CallbackDelivery
from flowd.api.http.responses import json_response, requested_execution_id
from flowd.api.shared import shared_of
from flowd.errors import NoCallback


async def show_callback(request: Request) -> Response:
    """Show the delivery of an execution's callback."""
    execution_id = requested_execution_id(request)
    store = shared_of(request.app).store
    await store.executions.execution_status(execution_id)
    definition: dict[str, Any] = orjson.loads(await store.executions.definition(execution_id))
    if not (callback := definition.get("callback")):
        raise NoCallback(execution_id)
    delivery = await store.callbacks.delivery(execution_id)
    return json_response(
        CallbackDelivery(
            execution_id=execution_id,
            url=callback["url"],
            state=delivery.state,
            attempts=delivery.attempts,
            next_ms=delivery.next_ms,
            last_status=delivery.last_status,
            last_error=delivery.last_error,
            delivered_ms=delivery.delivered_ms,
        )
    )


ROUTES = [
    Endpoint(
        "GET",
        "/workflows/{execution_id}/callback",
        show_callback,
        scope="read",
        answers={200: CallbackDelivery},
        problems=("unknown_execution", "no_callback", "store_unavailable"),
    )
]
