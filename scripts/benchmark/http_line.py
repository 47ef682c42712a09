"""HTTP written lean, so that the client is not what is measured."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import orjson
import uvloop

from scripts.benchmark.processes import Void

Address = tuple[str, int]

TIMEOUT_S = 30.0
_CHUNK_BYTES = 1 << 16
_STATUS_AND_LENGTH = re.compile(rb"HTTP/1\.1 (\d{3}).*?\r\ncontent-length: *(\d+)", re.S | re.I)


def request(method: str, path: str, body: bytes = b"") -> bytes:
    head = f"{method} {path} HTTP/1.1\r\nhost: localhost\r\n"
    if body:
        head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n"
    elif method == "POST":
        head += "content-length: 0\r\n"
    return head.encode() + b"\r\n" + body


def trigger_request(execution_id: str) -> bytes:
    return request("POST", f"/workflow/trigger/{execution_id}")


def whole_answer(received: bytes) -> bytes | None:
    """The body of the one answer in `received`; None while it is not whole. Raises Void."""
    head, end, body = received.partition(b"\r\n\r\n")
    if not end:
        return None
    found = _STATUS_AND_LENGTH.match(head)
    if found is None or found[1] != b"200":
        raise Void(f"the API answered {received[:500]!r}")
    return body if len(body) == int(found[2]) else None


def execution_id_of(body: bytes) -> str:
    return str(orjson.loads(body)["execution_id"])


def execution_ids_of(body: bytes) -> list[str]:
    """Of an answer about one execution, or about many."""
    answer = orjson.loads(body)
    return answer.get("execution_ids") or [answer["execution_id"]]


class HttpLine:
    """One keep-alive connection that waits for each answer."""

    def __init__(self, address: Address) -> None:
        self._socket = socket.create_connection(address, timeout=TIMEOUT_S)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def __enter__(self) -> HttpLine:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def ask(self, sent: bytes) -> bytes:
        """The body of the answer. Raises Void when it is no 200."""
        self._socket.sendall(sent)
        received = b""
        while (body := whole_answer(received)) is None:
            data = self._socket.recv(_CHUNK_BYTES)
            if not data:
                raise Void("the API closed the connection")
            received += data
        return body

    def run_workflow(self, body: bytes) -> str:
        """Submit, trigger, and ask until it has ended; its id."""
        execution_id = execution_id_of(self.ask(request("POST", "/workflow", body)))
        self.ask(trigger_request(execution_id))
        question = request("GET", f"/workflows/{execution_id}")
        deadline = time.monotonic() + TIMEOUT_S
        while (status := orjson.loads(self.ask(question))["status"]) != "COMPLETED":
            if status == "FAILED" or time.monotonic() >= deadline:
                raise Void(f"execution {execution_id} is {status}")
        return execution_id


class Load(NamedTuple):
    """What a crowd of clients did."""

    seconds: float
    client_cpu_s: float
    execution_ids: list[str]


def submit_and_trigger(address: Address, clients: int, pairs: int, body: bytes) -> Load:
    """`pairs` submissions, each followed by its trigger, over `clients` keep-alive connections."""
    return ask(address, clients, pairs, request("POST", "/workflow", body), triggers=True)


def ask(address: Address, clients: int, times: int, asked: bytes, *, triggers: bool) -> Load:
    """The same request `times` over, over `clients` keep-alive connections."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_ask(address, clients, _Submission(times, asked, triggers)))


class _Submission(NamedTuple):
    """How often it is sent, what, and whether what it makes is triggered."""

    times: int
    asked: bytes
    triggers: bool


async def _ask(address: Address, clients: int, submission: _Submission) -> Load:
    crowd = _Crowd(clients, submission)
    loop = asyncio.get_running_loop()
    protocols = [
        (await loop.create_connection(lambda: _Client(crowd), *address))[1] for _ in range(clients)
    ]
    begin, cpu_begin = time.perf_counter(), time.process_time()
    for client in protocols:
        client.submit()
    async with asyncio.timeout(2 * TIMEOUT_S):
        await crowd.ended
    return Load(crowd.end - begin, time.process_time() - cpu_begin, crowd.execution_ids)


class _Crowd:
    """What is left to submit, and what has been triggered."""

    def __init__(self, clients: int, submission: _Submission) -> None:
        self.submission = submission
        self.execution_ids: list[str] = []
        self.ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.end = 0.0
        self._working = clients
        self._left = submission.times

    def take(self) -> bool:
        """Whether one more is to be submitted."""
        self._left -= 1
        return self._left >= 0

    def leave(self) -> None:
        self._working -= 1
        if not self._working:
            self.end = time.perf_counter()
            self.ended.set_result(None)

    def fail(self, error: Exception) -> None:
        if not self.ended.done():
            self.ended.set_exception(error)


class _Client(asyncio.Protocol):
    """Submits, triggers, and begins again, without a task or a coroutine."""

    def __init__(self, crowd: _Crowd) -> None:
        self._crowd = crowd
        self._received = b""
        self._take_answer: Callable[[bytes], None] = self._trigger

    def connection_made(self, transport: Any) -> None:
        self._transport = transport

    def connection_lost(self, exc: Exception | None) -> None:
        self._crowd.fail(exc or Void("the API closed the connection"))

    def data_received(self, data: bytes) -> None:
        self._received += data
        try:
            body = whole_answer(self._received)
        except Void as error:
            self._crowd.fail(error)
            return
        if body is not None:
            self._received = b""
            self._take_answer(body)

    def submit(self) -> None:
        if self._crowd.take():
            self._take_answer = self._trigger
            self._transport.write(self._crowd.submission.asked)
        else:
            self._crowd.leave()

    def _trigger(self, body: bytes) -> None:
        execution_ids = execution_ids_of(body)
        self._crowd.execution_ids += execution_ids
        if not self._crowd.submission.triggers:
            self.submit()
            return
        self._take_answer = self._go_on
        self._transport.write(trigger_request(execution_ids[0]))

    def _go_on(self, _body: bytes) -> None:
        self.submit()
