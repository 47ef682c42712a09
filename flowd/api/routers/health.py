"""`GET /health`: the API is alive. It asks nobody else, so that a slow Redis restarts no API."""

from __future__ import annotations

from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import Health
from flowd.api.http.responses import json_response


async def show_health(_request: Request) -> Response:
    """Say that the API answers."""
    return json_response(Health(status="ok"))


ROUTES = [Endpoint("GET", "/health", show_health, scope="public", answers={200: Health})]
