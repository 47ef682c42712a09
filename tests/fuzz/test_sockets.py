"""What listens on a socket, under bytes that nobody would send: no crash, no 5xx, memory flat."""

from __future__ import annotations

import asyncio
import os
import random
import selectors
import socket
from collections.abc import Callable
from pathlib import Path

from flowd.supervisor.asking import SOCKET_FILE
from flowd.supervisor.control import ControlServer
from tests.daemon import PATIENCE_S
from tests.flow.api_server import api_server

ROUNDS = 2_000
CHUNK_MAX = 4096
GROWTH_MAX_MB = 40
SEED = 20_261_124

HEAD = b" HTTP/1.1\r\nHost: localhost\r\n"
AN_ID = b"0123456789ab0123456789ab"
REQUESTS = [
    b"GET /health" + HEAD + b"\r\n",
    b"POST /workflow" + HEAD + b"Content-Length: 2\r\n\r\n{}",
    b"POST /workflow" + HEAD + b"Transfer-Encoding: chunked\r\n\r\n2\r\n{}\r\n0\r\n\r\n",
    b"GET /workflows?limit=5&status=RUNNING" + HEAD + b"\r\n",
    b"GET /workflows/" + AN_ID + b"/nodes/A" + HEAD + b"\r\n",
    b"POST /workflows/" + AN_ID + b"/rerun" + HEAD + b'Content-Length: 12\r\n\r\n{"from":"A"}',
    b"DELETE /dead-letters/1-1" + HEAD + b"\r\n",
    b"GET /openapi.json" + HEAD + b"Authorization: Bearer x\r\n\r\n",
]
ORDERS = [
    b'{"command":"status"}\n',
    b'{"command":"scale","workers":2}\n',
    b'{"command":"restart"}\n',
]
LINES = [b"Content-Length: 9\r\n", b"Host: b\r\n", b"Transfer-Encoding: chunked\r\n"]
SPLICES = [b"\r\n", b"\0", b"%00", b"%", b"..", b"\xff", b" ", b"{", b"[", *LINES]


def mutate(choose: random.Random, message: bytes) -> bytes:
    data = bytearray(message)
    for _ in range(choose.randint(0, 6)):
        at = choose.randint(0, len(data))
        how = choose.random()
        if how < 0.3:
            data[at:at] = choose.choice(SPLICES) * choose.choice((1, 1, 1, 50))
        elif how < 0.6:
            data[at : at + choose.randint(1, 8)] = choose.randbytes(choose.randint(0, 8))
        elif how < 0.8:
            del data[at : at + choose.randint(1, 20)]
        else:
            data += choose.randbytes(choose.randint(1, CHUNK_MAX))
    return bytes(data)


def memory_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


async def test_the_http_front_answers_or_closes_and_never_fails(settings) -> None:
    choose = random.Random(SEED)
    async with api_server(settings) as api:

        async def send(message: bytes, patience_s: float = 0.1) -> bytes:
            reader, writer = await asyncio.open_connection("127.0.0.1", api.port)
            writer.write(message)
            try:
                async with asyncio.timeout(patience_s):
                    return await reader.read(2**20)
            except (TimeoutError, ConnectionError):
                return b""
            finally:
                writer.transport.abort()

        answers: list[bytes] = []
        before = 0.0
        for round_ in range(ROUNDS // 20):
            messages = [mutate(choose, choose.choice(REQUESTS)) for _ in range(20)]
            answers += await asyncio.gather(*map(send, messages))
            if round_ == 2:
                before = memory_mb()
        statuses = {answer[9:12] for answer in answers if answer}
        failed = [answer for answer in answers if answer[9:10] == b"5"]
        assert failed == []
        assert b"400" in statuses
        assert memory_mb() - before < GROWTH_MAX_MB
        assert (await send(REQUESTS[0], PATIENCE_S)).startswith(b"HTTP/1.1 200")


def test_the_control_socket_survives_what_is_written_to_it(tmp_path) -> None:
    choose = random.Random(SEED)
    selector = selectors.DefaultSelector()
    seen: list[dict] = []

    def answer(request: dict) -> dict:
        seen.append(request)
        if request.get("command") != "status":
            raise ValueError("unknown command")
        return {"pid": 1}

    control = ControlServer(tmp_path, selector, answer)
    before = memory_mb()
    for _ in range(ROUNDS):
        exchange(tmp_path, mutate(choose, choose.choice(ORDERS)), lambda: turn(selector))
    assert all(isinstance(request, dict) for request in seen)
    assert exchange(tmp_path, ORDERS[0], lambda: turn(selector)) == b'{"pid": 1}\n'
    assert memory_mb() - before < GROWTH_MAX_MB
    control.close()
    selector.close()


def turn(selector: selectors.BaseSelector) -> None:
    for key, _ in selector.select(0):
        if selector.get_map().get(key.fileobj) == key:
            key.data()


def exchange(folder, message: bytes, turn_loop: Callable[[], None]) -> bytes:
    """Say something, and hear what there is to hear before hanging up."""
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(str(folder / SOCKET_FILE))
        line.setblocking(False)
        for at in range(0, len(message), CHUNK_MAX):
            try:
                line.send(message[at : at + CHUNK_MAX])
            except (BlockingIOError, BrokenPipeError):
                break
            turn_loop()
        for _ in range(5):
            turn_loop()
        try:
            return line.recv(65536)
        except (BlockingIOError, ConnectionError):
            return b""
