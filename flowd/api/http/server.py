"""Serve on a listener that is already bound: uvicorn, with flowd's stop and its time limits."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from flowd.api.contract.problems import KINDS, MEDIA_TYPE, problem_document
from flowd.api.http.event_stream import ABORT

HEAD_S_MAX = 8.0
HEAD_BYTES_MAX = 64 * 1024
KEEP_ALIVE_S = 30
# A client still sending its body when the API stops has not been promised anything yet.
STOP_BODY_S_MAX = 1.0
# What still comes of a body after the answer is read for this long: a client that listens only once
# it has sent all would otherwise miss it.
DROPPED_BODY_S_MAX = 5.0
# Connections beyond the limit that are let go slowly, and how slowly.
REFUSED_CONNECTIONS_MAX = 16
REFUSED_CONNECTION_S_MAX = 1.0
# When the API stops, a request that is on its way on an open connection may still arrive this long.
LAST_REQUEST_S_MAX = 0.3


class _OneWrite:
    """A transport that sends two writes of one turn of the loop as one: an answer's head and body.

    Each would be a packet, and wake the client by itself.
    """

    def __init__(self, transport: asyncio.Transport, loop: asyncio.AbstractEventLoop) -> None:
        self._transport = transport
        self._loop = loop
        self._held = b""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._transport, name)

    def write(self, data: bytes) -> None:
        if self._held:
            self._held += data
            self._flush()
        else:
            self._held = data
            self._loop.call_soon(self._flush)

    def write_eof(self) -> None:
        self._flush()
        self._transport.write_eof()

    def close(self) -> None:
        self._flush()
        self._transport.close()

    def _flush(self) -> None:
        if self._held:
            held, self._held = self._held, b""
            self._transport.write(held)


class _Protocol(HttpToolsProtocol):
    """One connection. Bounds the head of a request, in time and size, which uvicorn does not."""

    def __init__(self, *arguments: Any, connections_max: int, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self._connections_max = connections_max
        self._is_refused = False
        self._deadline: asyncio.TimerHandle | None = None
        self._is_in_head = False
        self._is_last = False
        self._head_bytes = 0

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(_OneWrite(transport, self.loop))  # type: ignore[arg-type]
        over = len(self.connections) - self._connections_max
        if self._connections_max and over > 0:
            self._refuse_connection(over)
        else:
            self._arm(HEAD_S_MAX)

    def connection_lost(self, exc: Exception | None) -> None:
        self._disarm()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._is_refused:
            return
        super().data_received(data)
        if self._is_in_head:
            self._head_bytes += len(data)
            if self._head_bytes > HEAD_BYTES_MAX:
                self._refuse("head_too_large", f"the head exceeds {HEAD_BYTES_MAX:,} bytes")

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_in_head = True
        self._head_bytes = 0
        if self._deadline is None:
            self._arm(HEAD_S_MAX)

    def on_headers_complete(self) -> None:
        self._is_in_head = False
        self._disarm()
        hosts = sum(name == b"host" for name, _ in self.headers)
        if hosts > 1 or (not hosts and self.parser.get_http_version() == "1.1"):
            # Proxies and servers disagree on which of two hosts is meant: RFC 9112 3.2.
            raise ValueError("a request must name one host")
        super().on_headers_complete()
        # For a stream whose client does not read: closed in order, it would hold up the stop.
        self.scope[ABORT] = self.transport.abort  # type: ignore[typeddict-unknown-key]
        if self._is_last:
            self.cycle.keep_alive = False

    def on_message_complete(self) -> None:
        if self.cycle.response_complete:
            self._disarm()
        super().on_message_complete()

    def on_response_complete(self) -> None:
        if self.cycle.response_complete and self.cycle.more_body:
            # Answered before its body had come: what still comes is dropped, and not for ever.
            self._arm(DROPPED_BODY_S_MAX)
        super().on_response_complete()

    def _refuse_connection(self, over: int) -> None:
        """Say so at once. It may still send a request, and closed on that it would lose the answer:
        a few such connections are kept until the client has closed them."""
        self._is_refused = True
        detail = (
            f"there are {self._connections_max:,} connections; the setting is api.connections_max"
        )
        self._write_refusal("too_many_connections", detail)
        if over > REFUSED_CONNECTIONS_MAX:
            self.transport.close()
        else:
            self.transport.write_eof()
            self._arm(REFUSED_CONNECTION_S_MAX)

    def send_400_response(self, msg: str) -> None:  # noqa: ARG002
        self._refuse("bad_request", "this is not a valid HTTP/1.1 request")

    def shutdown(self) -> None:
        self._is_last = True
        if self.cycle is None or self.cycle.response_complete:
            # Closed at once, it would answer a request that is on its way with a reset.
            self._arm(LAST_REQUEST_S_MAX)
        else:
            super().shutdown()
            if self.cycle.more_body:
                self._arm(STOP_BODY_S_MAX)

    def _refuse(self, code: str, detail: str) -> None:
        self._is_in_head = False
        self._write_refusal(code, detail)
        self.transport.close()

    def _write_refusal(self, code: str, detail: str) -> None:
        kind = KINDS[code]
        body = problem_document(code, detail)
        head = b"content-type: %b\r\ncontent-length: %d\r\nconnection: close\r\n"
        if kind.retry_after_s is not None:
            head += b"retry-after: %d\r\n" % kind.retry_after_s
        head %= (MEDIA_TYPE.encode(), len(body))
        self.transport.write(STATUS_LINE[kind.status] + head + b"\r\n" + body)

    def _arm(self, delay_s: float) -> None:
        self._disarm()
        self._deadline = self.loop.call_later(delay_s, self.transport.close)

    def _disarm(self) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None


class HttpServer(uvicorn.Server):
    """Accepts on `listener` until SIGTERM or SIGINT, answers what it has begun, and returns.

    `ready` is called once, when connections are accepted, and `stopping` once when they are not any
    more: what would never end by itself ends then. Connections that only wait for a next
    request are closed when none comes in a moment. A second signal waits for nobody.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        grace_s: float,
        ready: Callable[[], None],
        stopping: Callable[[], None] = lambda: None,
        connections_max: int = 0,
    ) -> None:
        """`connections_max` 0 is no limit."""
        super().__init__(
            uvicorn.Config(
                app,
                http=partial(_Protocol, connections_max=connections_max),  # type: ignore[arg-type]
                ws="none",
                lifespan="on",
                interface="asgi3",
                access_log=False,
                log_config=None,
                log_level="error",
                server_header=False,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=grace_s,  # type: ignore[arg-type]
            )
        )
        self._ready = ready
        self._stopping = stopping
        self._is_told_to_stop = asyncio.Event()

    async def main_loop(self) -> None:
        """Once a second, for the date of the answers; uvicorn's looks ten times as often whether
        it should stop, and at rest that is most of what the API costs."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(1.0):
                    await self._is_told_to_stop.wait()

    async def serve_on(self, listener: socket.socket) -> None:
        await self.serve(sockets=[listener])

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        for server in self.servers:
            server.close()
        self._stopping()
        # What was accepted just now is a connection after this, and is told like all others.
        await asyncio.sleep(0)
        await super().shutdown(sockets)

    @contextmanager
    def capture_signals(self) -> Generator[None, None, None]:
        # uvicorn's own raises the signal again in the end, and the process would die of it.
        loop = asyncio.get_running_loop()
        signals = (signal.SIGTERM, signal.SIGINT)
        for number in signals:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True
        self._is_told_to_stop.set()
