"""Server-sent events (HTML Living Standard 9.2): a response that goes on until somebody ends it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Protocol

import orjson
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flowd.api.event_feed import Gap
from flowd.store.events import StoredEvent

MEDIA_TYPE: Final = "text/event-stream"
HEARTBEAT_S: Final = 15.0
# How long a browser waits before it connects again.
RECONNECT_MS: Final = 1000
# A client that has to go is still written to this long.
LAST_WRITE_S_MAX: Final = 1.0
# The server lends the way to end a connection whose client does not read.
ABORT: Final = "flowd.abort"
# The gate lends the way to ask again whether it lets this request through.
ASK_AGAIN: Final = "flowd.ask_again"


class Readable(Protocol):
    """A subscription, whatever its items are."""

    is_over: bool
    expelled: asyncio.Event

    def has_waiting(self) -> bool: ...

    async def read(self, patience_s: float) -> Sequence[Any]: ...

    def close(self) -> None: ...


def format_event(item: StoredEvent | Gap) -> bytes:
    if isinstance(item, Gap):
        data = orjson.dumps({"after": item.after, "oldest": item.oldest})
        return b"event: gap\ndata: %b\n\n" % data
    facts = {
        "execution_id": item.execution_id or None,
        "node_id": item.node_id,
        "attempt": item.attempt,
        "queued_ms": item.queued_ms,
        "waited_ms": item.waited_ms,
        "ran_ms": item.ran_ms,
        "worker": item.worker,
        "at_ms": item.at_ms,
        "name": item.name,
        "error": item.error,
        "waits_for": item.waits_for,
        "woken_by": item.woken_by,
    }
    facts |= item.rarely or {}
    if item.schedule:
        facts |= zip(("schedule", "times", "scheduled_ms"), item.schedule, strict=True)
    try:
        data = orjson.dumps({name: value for name, value in facts.items() if value is not None})
    except orjson.JSONEncodeError:
        # Somebody else wrote into the stream what is no text.
        return b""
    head = (item.position.event_id.encode(), _one_line(item.type))
    return b"id: %b\nevent: %b\ndata: %b\n\n" % (*head, data)


def _one_line(text: str) -> bytes:
    return " ".join(text.split()).encode("utf-8", "replace")


class EventStream(Response):
    """Streams a subscription, and closes it when it or the client has ended."""

    media_type = MEDIA_TYPE

    def __init__(
        self,
        subscription: Readable,
        first: Sequence[Any] = (),
        write: Callable[[Any], bytes] = format_event,
    ) -> None:
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        super().__init__(headers=headers)
        del self.headers["content-length"]
        self._subscription = subscription
        self._first = first
        self._format = write

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with contextlib.closing(self._subscription):
            await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
            if scope["method"] == "HEAD":
                await send({"type": "http.response.body", "body": b""})
                return
            writing = asyncio.create_task(self._write(scope, send))
            leaving = asyncio.create_task(has_left(receive))
            expulsion = asyncio.create_task(self._subscription.expelled.wait())
            tasks = (writing, leaving, expulsion)
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                if expulsion.done() and not leaving.done():
                    await asyncio.wait((writing,), timeout=LAST_WRITE_S_MAX)
                if not writing.done():
                    # Its client is gone, or does not read what it asked for.
                    scope.get(ABORT, _do_nothing)()
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
            if not writing.cancelled():
                writing.result()

    async def _write(self, scope: Scope, send: Send) -> None:
        may_go_on = scope.get(ASK_AGAIN, _always)
        body = b"retry: %d\n\n" % RECONNECT_MS + b"".join(map(self._format, self._first))
        quiet_since = time.monotonic()
        while may_go_on(scope):
            if body:
                await send({"type": "http.response.body", "body": body, "more_body": True})
                quiet_since = time.monotonic()
            if self._subscription.is_over and not self._subscription.has_waiting():
                break
            left_s = quiet_since + HEARTBEAT_S - time.monotonic()
            items = await self._subscription.read(max(0.001, left_s))
            body = b"".join(map(self._format, items))
            if not body and not self._subscription.is_over:
                is_due = time.monotonic() - quiet_since >= HEARTBEAT_S - 0.01
                body = b": heartbeat\n\n" if is_due else b""
        await send({"type": "http.response.body", "body": b"", "more_body": False})


def _always(_scope: Scope) -> bool:
    """The answer where there is no gate."""
    return True


def _do_nothing() -> None:
    """What a server that lends no way to end a connection is told."""


async def has_left(receive: Receive) -> None:
    """Returns when the client has; its request has been read to the end."""
    while (await receive())["type"] != "http.disconnect":
        pass
