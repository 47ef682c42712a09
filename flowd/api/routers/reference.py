"""The API described: for programs as OpenAPI, for people as a page."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.route import Endpoint
from flowd.api.shared import shared_of
from flowd.manual import read_page, topics

OPENAPI_TYPE: Final = "application/json"
PAGE_TYPE: Final = "text/html; charset=utf-8"


async def show_openapi(request: Request) -> Response:
    """Describe this API in OpenAPI 3.1."""
    return Response(_openapi(request), media_type=OPENAPI_TYPE)


async def show_page(request: Request) -> Response:
    """Describe this API on a page, which loads nothing from elsewhere."""
    import orjson

    from flowd.web.reference_page import reference_page

    document = orjson.loads(_openapi(request))
    return _page(reference_page(document, f"http://{request.url.netloc}", topics()))


async def show_manual(request: Request) -> Response:
    """Show a page of the manual, which loads nothing from elsewhere."""
    from flowd.web.manual_page import manual_page

    topic = request.path_params["topic"]
    return _page(manual_page(topic, read_page(topic), topics()))


def _page(html: str) -> Response:
    from flowd.web.reference_page import CONTENT_SECURITY_POLICY

    headers = {
        "content-security-policy": CONTENT_SECURITY_POLICY,
        "x-content-type-options": "nosniff",
        "referrer-policy": "no-referrer",
    }
    return Response(html, headers=headers, media_type=PAGE_TYPE)


def _openapi(request: Request) -> bytes:
    """Made at the first request: most APIs are never asked."""
    shared = shared_of(request.app)
    if shared.openapi is None:
        from flowd.api.contract.openapi import openapi_json

        shared.openapi = openapi_json(request.app.routes)
    return shared.openapi


ROUTES = [
    Endpoint("GET", "/openapi.json", show_openapi, scope="public", answers={200: OPENAPI_TYPE}),
    Endpoint("GET", "/docs", show_page, scope="public", answers={200: PAGE_TYPE}),
    Endpoint(
        "GET",
        "/docs/{topic}",
        show_manual,
        scope="public",
        answers={200: PAGE_TYPE},
        problems=("unknown_topic",),
    ),
]
