"""Watch what happens, as server-sent events: in one execution, or in all."""

from __future__ import annotations

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from flowd.api.contract.model import Model
from flowd.api.contract.query import read_last_event, read_query
from flowd.api.contract.route import Endpoint
from flowd.api.event_bell import format_bell
from flowd.api.event_feed import Subscription
from flowd.api.http.event_stream import MEDIA_TYPE, EventStream
from flowd.api.http.responses import requested_execution_id
from flowd.api.shared import shared_of
from flowd.store.events import EventType, Position, parse_event_id


class EventsQuery(Model):
    types: list[EventType] = Field(
        default=[], description="only events of these types, such as `node.failed,execution.failed`"
    )
    last_event_id: str = Field(default="", description="as the header `Last-Event-ID`")


async def watch_execution(request: Request) -> Response:
    """Stream the events of an execution until it ends, from its submission or the last you saw."""
    execution_id = requested_execution_id(request)
    query = read_query(request, EventsQuery)
    types, after = frozenset(query.types), _last_event(request, query)
    store = shared_of(request.app).store
    feed = shared_of(request.app).feed
    # Asked for first: an end that comes later is still announced to whoever listens from now on.
    has_ended = (await store.executions.execution_status(execution_id)).is_terminal
    if after is None:
        subscription = await feed.replay(execution_id, types, has_ended=has_ended)
    else:
        subscription = await feed.resume(after, execution_id, types, has_ended=has_ended)
    if not has_ended:
        return EventStream(subscription)
    return await _rest_of_the_past(subscription, is_resumed=after is not None)


async def watch_all(request: Request) -> Response:
    """Stream the events of all executions, from now on or from the last you saw."""
    query = read_query(request, EventsQuery)
    types, after = frozenset(query.types), _last_event(request, query)
    feed = shared_of(request.app).feed
    if after is None:
        return EventStream(await feed.follow(types=types))
    return EventStream(await feed.resume(after, types=types))


async def watch_for_changes(request: Request) -> Response:
    """Stream a `bell` at once, and whenever anything has happened since.

    At most four a second, for a page that then asks for what it shows.
    """
    bell = await shared_of(request.app).feed.ring()
    return EventStream(bell, [bell.position], format_bell)


async def _rest_of_the_past(subscription: Subscription, *, is_resumed: bool) -> Response:
    """A client that has seen the end is told not to come back: browsers would, for ever."""
    first = await subscription.read(1.0)
    if is_resumed and not first and subscription.is_over:
        subscription.close()
        return Response(status_code=204)
    return EventStream(subscription, first)


def _last_event(request: Request, query: EventsQuery) -> Position | None:
    described = "an event, such as 1764000000000-0.2"
    return read_last_event(request, query.last_event_id, parse_event_id, described)


_HEADERS = {"Last-Event-ID": "the id of the last event you saw; later ones are sent first"}
_PROBLEMS = ("invalid_request", "store_unavailable")

ROUTES = [
    Endpoint(
        "GET",
        "/workflows/{execution_id}/events",
        watch_execution,
        scope="read",
        answers={200: MEDIA_TYPE, 204: ""},
        problems=("unknown_execution", *_PROBLEMS),
        query=EventsQuery,
        headers=_HEADERS,
    ),
    Endpoint(
        "GET",
        "/events",
        watch_all,
        scope="read",
        answers={200: MEDIA_TYPE},
        problems=_PROBLEMS,
        query=EventsQuery,
        headers=_HEADERS,
    ),
    Endpoint(
        "GET",
        "/events/bell",
        watch_for_changes,
        scope="read",
        answers={200: MEDIA_TYPE},
        problems=("store_unavailable",),
    ),
]
