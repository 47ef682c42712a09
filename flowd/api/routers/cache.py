"""See how much is kept of what calls came to, and forget it."""

from __future__ import annotations

from typing import Final

from pydantic import ConfigDict, Field
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.model import Model
from flowd.api.contract.query import read_query
from flowd.api.contract.route import Endpoint
from flowd.api.http.responses import json_response
from flowd.api.shared import shared_of
from flowd.errors import InvalidRequest, Problem
from flowd.log import get_logger
from flowd.workflow.caching import names_under

log = get_logger(__name__)

BEGINNING_CHARS_MAX: Final = 100


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class CachedHandler(_Body):
    """How many outputs of a handler are kept, and the bytes they take with all that belongs to
    them."""

    handler: str
    entries: int
    bytes: int


class CacheView(_Body):
    entries: int
    bytes: int
    bytes_max: int
    handlers: list[CachedHandler]


class CacheCleared(_Body):
    removed: int
    message: str


class KeyQuery(Model):
    key: str | None = Field(
        default=None,
        min_length=1,
        max_length=BEGINNING_CHARS_MAX,
        description="only what is kept under keys that begin with this",
    )


async def show_cache(request: Request) -> Response:
    """Show how many outputs are kept for equal calls, and how much room they take."""
    cache = shared_of(request.app).store.tasks.cache
    kept = await cache.size()
    return json_response(
        CacheView(
            entries=kept.entries,
            bytes=kept.size,
            bytes_max=kept.size_max,
            handlers=[
                CachedHandler(handler=handler, entries=entries, bytes=size)
                for handler, (entries, size) in (await cache.by_handler()).items()
            ],
        )
    )


async def clear_cache(request: Request) -> Response:
    """Forget every output that is kept."""
    for name in request.query_params:
        message = "this would forget everything; what is kept of one handler is at /cache/{handler}"
        raise InvalidRequest([Problem(f"query.{name}", "unknown_parameter", message)])
    return await _forget(request, None, None)


async def clear_handler(request: Request) -> Response:
    """Forget the outputs that are kept of one handler, or those of keys that begin so."""
    query = read_query(request, KeyQuery)
    return await _forget(request, request.path_params["handler"], query.key)


async def _forget(request: Request, handler: str | None, key: str | None) -> Response:
    removed = await shared_of(request.app).store.tasks.cache.clear(names_under(handler, key))
    log.info("cache.cleared", handler=handler, removed=removed)
    return json_response(CacheCleared(removed=removed, message="Cache cleared"))


ROUTES = [
    Endpoint("GET", "/cache", show_cache, scope="read", answers={200: CacheView}),
    Endpoint(
        "DELETE",
        "/cache",
        clear_cache,
        scope="admin",
        answers={200: CacheCleared},
        problems=("invalid_request",),
    ),
    Endpoint(
        "DELETE",
        "/cache/{handler}",
        clear_handler,
        scope="admin",
        answers={200: CacheCleared},
        problems=("invalid_request",),
        query=KeyQuery,
    ),
]
