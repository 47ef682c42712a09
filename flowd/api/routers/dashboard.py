"""The dashboard: a page and its files. They are public, and hold no data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.route import Endpoint

if TYPE_CHECKING:
    from flowd.web.dashboard import File

PAGE_TYPE: Final = "text/html; charset=utf-8"


async def lead_to_dashboard(request: Request) -> Response:
    """Lead a browser to the dashboard; for anybody else there is nothing here."""
    if "text/html" not in request.headers.get("accept", ""):
        raise HTTPException(404)
    # Relative: only the browser knows what a proxy has put before it.
    return Response(status_code=303, headers={"location": "ui/", "vary": "accept"})


async def show_dashboard(request: Request) -> Response:
    """Show the dashboard."""
    from flowd.web.dashboard import DEPTH_MAX, page

    depth = _sent_path(request).count("/") - 2
    if depth > DEPTH_MAX:
        raise HTTPException(404)
    return _answer(request, page(depth))


async def show_view(request: Request) -> Response:
    """Show a view of the dashboard: its page finds by its address what to show."""
    return await show_dashboard(request)


async def show_asset(request: Request) -> Response:
    """Send a file of the dashboard."""
    from flowd.web.dashboard import asset

    found = asset(request.path_params["file"])
    if found is None:
        raise HTTPException(404)
    return _answer(request, found)


def _sent_path(request: Request) -> str:
    """As the browser counts its folders: a slash that is escaped is none."""
    path: str = request.scope.get("raw_path", b"").decode("latin-1") or request.url.path
    return path.partition("?")[0]


def _answer(request: Request, file: File) -> Response:
    headers = dict(file.headers)
    if headers["etag"] in request.headers.get("if-none-match", ""):
        del headers["content-type"]
        return Response(status_code=304, headers=headers)
    if "gzip" not in request.headers.get("accept-encoding", ""):
        return Response(file.content, headers=headers)
    return Response(file.packed, headers=headers | {"content-encoding": "gzip"})


ROUTES = [
    Endpoint(
        "GET",
        "/",
        lead_to_dashboard,
        scope="public",
        answers={303: ""},
        problems=("not_found",),
    ),
    Endpoint("GET", "/ui", show_dashboard, scope="public", answers={200: PAGE_TYPE, 304: ""}),
    Endpoint(
        "GET", "/ui/static/{file:path}", show_asset, scope="public", answers={200: "*/*", 304: ""}
    ),
    Endpoint(
        "GET", "/ui/{view:path}", show_view, scope="public", answers={200: PAGE_TYPE, 304: ""}
    ),
]
