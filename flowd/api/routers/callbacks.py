"""How the callback of an execution goes."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import orjson
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import CallbackDelivery
from flowd.api.http.responses import json_response, requested_execution_id
from flowd.api.shared import shared_of
from flowd.errors import NoCallback
from flowd.store import Store
from flowd.store.definitions import reading_definition


async def show_callback(request: Request) -> Response:
    """Show the delivery of an execution's callback."""
    execution_id = requested_execution_id(request)
    store = shared_of(request.app).store
    await store.executions.execution_status(execution_id)
    callback = (await read_definition(store, execution_id)).get("callback")
    if not callback:
        raise NoCallback(f"the workflow of execution {execution_id!r}")
    return json_response(await read_delivery(store, execution_id, callback))


async def read_delivery(store: Store, execution_id: str, callback: Any) -> CallbackDelivery:
    """How the callback of this definition goes."""
    url = str(callback.get("url")) if isinstance(callback, dict) else ""
    delivery = await store.callbacks.delivery(execution_id)
    return CallbackDelivery(execution_id=execution_id, url=url, **asdict(delivery))


async def read_definition(store: Store, execution_id: str) -> dict[str, Any]:
    """The stored definition. Raises UnknownExecution, or CorruptExecution when it is none."""
    written = await store.executions.definition(execution_id)
    with reading_definition(execution_id):
        definition = orjson.loads(written)
        if not isinstance(definition, dict):
            raise TypeError("it is no object")
    return definition


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
