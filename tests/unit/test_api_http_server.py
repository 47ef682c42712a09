"""The HTTP server on a listener of its own: when it is ready, what it refuses, how it stops."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from flowd.api.contract.problems import ErrorAnswers
from flowd.api.http import server as http_server
from flowd.api.http.server import HttpServer

TIMEOUT_S = 180.0
# Whoever waits for the grace period to end has waited in vain.
ENDLESS_S = 2 * TIMEOUT_S


class Running:
    """A server under test, in this process, and what its application saw."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.ready_calls = 0
        self.is_ready = asyncio.Event()
        self.has_begun = asyncio.Event()
        self.may_end = asyncio.Event()
        self.is_stopping = False
        self.has_closed = False

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        return await asyncio.open_connection(*self.address)

    def stop(self) -> None:
        self.is_stopping = True
        os.kill(os.getpid(), signal.SIGTERM)

    async def is_closed(self) -> None:
        """Return when the server has seen the signal, and closed its listener."""
        while self.listener.fileno() != -1:  # noqa: ASYNC110 - a descriptor tells nobody
            await asyncio.sleep(0.01)

    def ready(self) -> None:
        self.ready_calls += 1
        self.is_ready.set()

    def server(self, grace_s: float, connections_max: int) -> HttpServer:
        self.address = self.listener.getsockname()

        async def quick(_request: Request) -> Response:
            return Response(b"quick")

        async def slow(_request: Request) -> Response:
            self.has_begun.set()
            await self.may_end.wait()
            return Response(b"slow")

        async def upload(request: Request) -> Response:
            self.has_begun.set()
            return Response(str(len(await request.body())))

        async def refuse(_request: Request) -> Response:
            return Response(b"refused")

        @asynccontextmanager
        async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
            yield
            self.has_closed = True

        routes = [
            Route("/quick", quick),
            Route("/slow", slow),
            Route("/upload", upload, methods=["POST"]),
            Route("/refuse", refuse, methods=["POST"]),
        ]
        app = Starlette(routes=routes, lifespan=lifespan)
        return HttpServer(
            ErrorAnswers(app),
            grace_s=grace_s,
            ready=self.ready,
            connections_max=connections_max,
        )


def run(
    story: Callable[[Running], Awaitable[None]], *, grace_s: float = 5.0, connections_max: int = 0
) -> Running:
    """Run a story beside a server, and stop the server where the story did not."""

    async def both() -> Running:
        running = Running()
        server = running.server(grace_s, connections_max)
        serving = asyncio.create_task(server.serve_on(running.listener))
        await running.is_ready.wait()
        try:
            await story(running)
        finally:
            if not running.is_stopping:
                running.stop()
            await serving
        return running

    return asyncio.run(asyncio.wait_for(both(), TIMEOUT_S))


async def ask(running: Running, request: bytes) -> bytes:
    """Everything the server says until it closes the connection."""
    reader, writer = await running.connect()
    writer.write(request)
    answer = await reader.read()
    writer.close()
    return answer


def test_ready_is_called_once_and_a_signal_ends_it_in_order() -> None:
    async def story(running: Running) -> None:
        answer = await ask(running, b"GET /quick HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
        assert answer.endswith(b"quick")
        assert b"\r\nserver:" not in answer.lower()

    running = run(story)
    assert running.ready_calls == 1
    assert running.has_closed


def test_a_stop_answers_what_has_begun_and_closes_what_is_idle() -> None:
    async def story(running: Running) -> None:
        idle_reader, idle = await running.connect()
        idle.write(b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")
        await idle_reader.readuntil(b"quick")
        _, silent = await running.connect()
        slow_reader, slow = await running.connect()
        slow.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await running.has_begun.wait()
        running.stop()
        assert await idle_reader.read() == b""
        running.may_end.set()
        assert (await slow_reader.read()).endswith(b"slow")
        for writer in (idle, silent, slow):
            writer.close()

    assert run(story, grace_s=ENDLESS_S).has_closed


def test_what_is_not_answered_within_the_grace_period_is_told_so() -> None:
    async def story(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await running.has_begun.wait()
        running.stop()
        answer = await reader.read()
        assert answer.startswith(b"HTTP/1.1 503 ")
        assert b'"code":"stopping"' in answer
        writer.close()

    run(story, grace_s=0.2)


def test_an_upload_that_does_not_end_does_not_hold_up_a_stop(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "STOP_BODY_S_MAX", 0.1)

    async def story(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome")
        await running.has_begun.wait()
        running.stop()
        assert await reader.read() == b""
        writer.close()

    run(story, grace_s=60)


HOSTS = b"GET /quick HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n"
BOTH_LENGTHS = (
    b"POST /upload HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n"
)


@pytest.mark.parametrize(
    "request_bytes",
    [
        HOSTS,
        b"GET /quick HTTP/1.1\r\n\r\n",
        BOTH_LENGTHS,
        b"\x00\xff nonsense\r\n\r\n",
        b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /quick HTTP/1.1\r\nHost: a\r\nbad header\r\n\r\n",
    ],
)
def test_what_is_not_http_is_a_problem_document(request_bytes: bytes) -> None:
    async def story(running: Running) -> None:
        answer = await ask(running, request_bytes)
        assert answer.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert b"content-type: application/problem+json\r\n" in answer
        assert b'"code":"bad_request"' in answer

    run(story)


def test_a_head_without_end_is_refused() -> None:
    async def story(running: Running) -> None:
        endless = b"GET /quick HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 20_000
        answer = await ask(running, endless)
        assert answer.startswith(b"HTTP/1.1 431 ")
        assert b'"code":"head_too_large"' in answer

    run(story)


def test_a_long_body_in_one_piece_with_its_head_is_no_long_head() -> None:
    async def story(running: Running) -> None:
        length = http_server.HEAD_BYTES_MAX * 2
        head = (
            b"POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: %d\r\n\r\n"
        )
        answer = await ask(running, head % length + b"x" * length)
        assert answer.endswith(b"%d" % length)

    run(story)


@pytest.mark.parametrize("begun", [b"", b"GET /quick HT", b"GET /quick HTTP/1.1\r\nHost: a\r\n"])
def test_a_head_that_does_not_come_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch, begun: bytes
) -> None:
    monkeypatch.setattr(http_server, "HEAD_S_MAX", 0.1)

    async def story(running: Running) -> None:
        assert await ask(running, begun) == b""

    run(story)


def test_a_second_head_on_a_connection_is_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "HEAD_S_MAX", 1.5)

    async def story(running: Running) -> None:
        answer = await ask(running, b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\nGET /sl")
        assert answer.endswith(b"quick")

    run(story)


def test_a_second_signal_ends_without_waiting() -> None:
    async def story(running: Running) -> None:
        _, writer = await running.connect()
        writer.write(b"GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
        await running.has_begun.wait()
        running.stop()
        await asyncio.sleep(0)
        running.stop()
        writer.close()

    run(story, grace_s=ENDLESS_S)


def test_a_stop_still_answers_a_request_that_was_on_its_way() -> None:
    async def story(running: Running) -> None:
        used_reader, used = await running.connect()
        used.write(b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")
        await used_reader.readuntil(b"quick")
        new_reader, new = await running.connect()
        running.stop()
        await running.is_closed()

        for reader, writer in ((used_reader, used), (new_reader, new)):
            writer.write(b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n")
            answer = await reader.read()
            assert answer.startswith(b"HTTP/1.1 200 OK\r\n")
            assert b"connection: close\r\n" in answer
            writer.close()

    run(story)


QUICK = b"GET /quick HTTP/1.1\r\nHost: a\r\n\r\n"


def test_a_connection_too_many_is_told_so_and_makes_room_when_another_ends() -> None:
    async def story(running: Running) -> None:
        kept = [await running.connect() for _ in range(2)]
        for reader, writer in kept:
            writer.write(QUICK)
            await reader.readuntil(b"quick")

        # The third says something before it has read that it should not, and the fourth nothing.
        answers = [await ask(running, QUICK * 100), await ask(running, b"")]

        for answer in answers:
            assert answer.startswith(b"HTTP/1.1 503 Service Unavailable\r\n")
            assert b"retry-after: 1\r\n" in answer
            assert b'"code":"too_many_connections"' in answer
        for reader, writer in kept:
            writer.write(QUICK)
            await reader.readuntil(b"quick")
            writer.close()
            await reader.read()
        while b"200 OK" not in await ask(running, QUICK.replace(b"\r\n\r\n", CLOSE)):
            pass

    run(story, connections_max=2)


CLOSE = b"\r\nConnection: close\r\n\r\n"


def test_many_connections_too_many_cost_nothing_for_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_server, "REFUSED_CONNECTIONS_MAX", 2)
    monkeypatch.setattr(http_server, "REFUSED_CONNECTION_S_MAX", 0.1)

    async def story(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(QUICK)
        await reader.readuntil(b"quick")

        # None of them closes its own end.
        others = [await running.connect() for _ in range(20)]
        for other, _ in others:
            assert b" 503 " in await other.readline()

        writer.write(QUICK)
        await reader.readuntil(b"quick")
        for other, other_writer in others:
            await other.read()
            other_writer.close()
        writer.close()

    run(story, connections_max=1)


def test_a_body_without_end_behind_an_answer_closes_the_connection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "DROPPED_BODY_S_MAX", 0.1)

    async def story(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"POST /refuse HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n")
        await reader.readuntil(b"refused")
        with suppress(ConnectionError):
            while not writer.is_closing():
                writer.write(b"5\r\nagain\r\n")
                await writer.drain()
                await asyncio.sleep(0)
        writer.close()

    run(story)


def test_a_body_that_ends_behind_an_answer_leaves_the_connection_open(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(http_server, "DROPPED_BODY_S_MAX", 1.0)

    async def story(running: Running) -> None:
        reader, writer = await running.connect()
        writer.write(b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nso")
        await reader.readuntil(b"refused")
        writer.write(b"me" + QUICK)
        await reader.readuntil(b"quick")
        # Longer than what is dropped may take: nothing happens then.
        await asyncio.sleep(1.2)
        writer.write(QUICK)
        await reader.readuntil(b"quick")
        writer.close()

    run(story)
