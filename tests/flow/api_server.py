"""The API in the test's own process, on a TCP port of its own, and a client for its events."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
from starlette.applications import Starlette

from flowd.api.app import create_app
from flowd.api.http.server import HttpServer
from flowd.api.shared import shared_of
from flowd.config import Settings
from flowd.handlers.registry import built_in_registry
from flowd.store import open_store

TIMEOUT_S = 300.0


class ApiServer:
    def __init__(self, app: Starlette, server: HttpServer, port: int) -> None:
        self.app = app
        self.server = server
        self.port = port

    async def connect(
        self, target: str, last_event_id: str = "", *, buffer: int = 0, accept: str = ""
    ) -> EventClient:
        """A client whose request is sent; `buffer` makes its socket take little unread."""
        connection = socket.socket()
        if buffer:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=2**24)
        head = f"GET {target} HTTP/1.1\r\nHost: test\r\n"
        if last_event_id:
            head += f"Last-Event-ID: {last_event_id}\r\n"
        if accept:
            head += f"Accept: {accept}\r\n"
        writer.write(f"{head}\r\n".encode())
        return EventClient(reader, writer)

    async def get(self, target: str, last_event_id: str = "") -> tuple[int, str, bytes]:
        """Status, media type and body of an answer that ends."""
        client = await self.connect(target, last_event_id)
        await client.read_head()
        body = await client.read_body()
        client.cut()
        return client.status, client.headers.get("content-type", ""), body


class EventClient:
    """Reads one response. `ids` are those of the events it saw."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer
        self._text = b""
        self.status = 0
        self.headers: dict[str, str] = {}

    def cut(self) -> None:
        self._writer.transport.abort()

    async def read_head(self) -> None:
        async with asyncio.timeout(TIMEOUT_S):
            lines = (await self._reader.readuntil(b"\r\n\r\n")).decode().splitlines()
        self.status = int(lines[0].split()[1])
        pairs = (line.partition(": ") for line in lines[1:] if line)
        self.headers = {name.lower(): value for name, _, value in pairs}

    async def read_body(self) -> bytes:
        if "content-length" in self.headers:
            return await self._reader.readexactly(int(self.headers["content-length"]))
        body = b""
        if self.status != 204:
            while chunk := await self.read_chunk():
                body += chunk
        return body

    async def read_chunk(self) -> bytes:
        """Empty at the end of the response, or when the connection is cut."""
        async with asyncio.timeout(TIMEOUT_S):
            try:
                size = int(await self._reader.readuntil(b"\r\n"), 16)
                chunk = await self._reader.readexactly(size + 2)
            except (asyncio.IncompleteReadError, ConnectionError):
                return b""
        return chunk[:-2]

    async def blocks(self) -> AsyncIterator[dict[str, str]]:
        """Each block of the stream as its fields; a comment has the name ''."""
        if not self.status:
            await self.read_head()
        while chunk := await self.read_chunk():
            self._text += chunk
            while b"\n\n" in self._text:
                block, _, self._text = self._text.partition(b"\n\n")
                pairs = [line.partition(":") for line in block.decode().splitlines()]
                fields = {name: value.strip() for name, _, value in pairs}
                assert len(fields) == len(pairs), f"two events in one block: {block!r}"
                yield fields

    async def events(self) -> AsyncIterator[dict[str, Any]]:
        async for block in self.blocks():
            if "event" in block:
                yield {**block, "data": orjson.loads(block["data"])}

    async def take(self, count: int) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        events = self.events()
        while len(found) < count:
            found.append(await anext(events))
        return found


@asynccontextmanager
async def api_server(settings: Settings, *, grace_s: float = 5.0) -> AsyncIterator[ApiServer]:
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    handlers = dict.fromkeys([*built_in_registry().names(), "echo"])
    app = create_app(open_store(settings), handlers)
    ready = asyncio.Event()
    server = HttpServer(app, grace_s=grace_s, ready=ready.set, stopping=shared_of(app).feed.close)
    serving = asyncio.create_task(server.serve_on(listener))
    await ready.wait()
    try:
        yield ApiServer(app, server, port)
    finally:
        server._stop()
        with contextlib.suppress(asyncio.CancelledError):
            await serving
