"""FAULTS I1 to I4: what hostile clients send to a whole flowd, over raw sockets."""

from __future__ import annotations

import json
import select
import socket
import threading
import time
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest

from tests.daemon import PATIENCE_S, wait_until
from tests.process.flowd_process import CONFIG, Flowd

MIB = 2**20


@pytest.fixture
def flowd(run_flowd: Callable[..., Flowd], tmp_path: Path) -> Iterator[Flowd]:
    (tmp_path / "flowd.toml").write_text(CONFIG.replace("[redis]", "connections_max = 20\n[redis]"))
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_for_status(lambda status: "http" in status["api"], "the address")
    wait_until(lambda: flowd.stdout, "the start")
    yield flowd
    assert '"request.failed"' not in flowd.stderr
    assert '"child.died"' not in flowd.stderr


def connect(flowd: Flowd) -> socket.socket:
    return socket.create_connection(
        ("127.0.0.1", urlsplit(flowd.url).port or 0), timeout=PATIENCE_S
    )


def read_all(client: socket.socket) -> bytes:
    answer = b""
    try:
        while part := client.recv(65536):
            answer += part
    except ConnectionError:
        pass
    return answer


def read_until(client: socket.socket, end: bytes) -> None:
    answer = b""
    while not answer.endswith(end):
        part = client.recv(65536)
        assert part, answer
        answer += part


def send(flowd: Flowd, *parts: bytes) -> bytes:
    with connect(flowd) as client:
        for part in parts:
            client.sendall(part)
        return read_all(client)


def post(flowd: Flowd, body: bytes) -> tuple[int, dict[str, Any]]:
    head = b"POST /workflow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    return parsed(send(flowd, head + b"Content-Length: %d\r\n\r\n" % len(body) + body))


def parsed(answer: bytes) -> tuple[int, dict[str, Any]]:
    head, _, body = answer.partition(b"\r\n\r\n")
    document: dict[str, Any] = json.loads(body)
    assert b"content-type: application/problem+json" in head.lower() or b" 200 " in head
    return int(head.split()[1]), document


def api_memory(flowd: Flowd) -> int:
    status = flowd.status()
    assert status is not None
    pid = next(one["pid"] for one in status["processes"] if one["name"] == "api-1")
    return int(psutil.Process(pid).memory_info().rss)


def test_i01_everything_wrong_is_one_answer(flowd: Flowd, figure: Callable[[str], None]) -> None:
    nodes = [
        {"id": "A", "handler": "noop", "dependencies": ["B"]},
        {"id": "B", "handler": "noop", "dependencies": ["A"]},
        {"id": "C", "handler": "noop", "dependencies": ["C"]},
        {"id": "D", "handler": "noop"},
        {"id": "D", "handler": "noop", "dependencies": ["missing"]},
        {"id": "E", "handler": "nop"},
    ]

    status, document = post(flowd, json.dumps({"name": "x", "dag": {"nodes": nodes}}).encode())

    assert (status, document["code"]) == (400, "invalid_workflow")
    assert "cycle" in document["detail"]
    figure(f"{len(document['errors'])} problems of 6 kinds in one answer")
    found = {(one["path"], one["code"]) for one in document["errors"]}
    assert {
        ("dag.nodes[0].dependencies[0]", "cycle"),
        ("dag.nodes[2].dependencies[0]", "cycle"),
        ("dag.nodes[4].id", "duplicate_id"),
        ("dag.nodes[4].dependencies[0]", "unknown_dependency"),
        ("dag.nodes[5].handler", "unknown_handler"),
    } <= found


def with_id(node_id: str) -> bytes:
    node = {"id": node_id, "handler": "noop"}
    return json.dumps({"name": "x", "dag": {"nodes": [node]}}).encode()


GOOD_START = b'{"name":"x","dag":{"nodes":[{"id":"A","handler":"noop","config":{"v":'
GOOD_END = b"}}]}}"


@pytest.mark.parametrize(
    "body",
    [
        *(with_id(one) for one in ("a:b", "a.b", "a\x00", "..", "ä", "x" * 10_000)),
        b'{"name":"x","dag":{"nodes":[]}}',
        GOOD_START + b"[" * 100_000 + b"]" * 100_000 + GOOD_END,
        GOOD_START + b"NaN" + GOOD_END,
        GOOD_START + b'"\\ud800"' + GOOD_END,
        GOOD_START + b"9" * 5000 + GOOD_END,
        GOOD_START + b'1,"v":2' + GOOD_END,
        b"\xff\xfe",
    ],
    ids=lambda body: repr(body[:90])[-30:],
)
def test_i02_nonsense_is_a_400(flowd: Flowd, body: bytes) -> None:
    status, document = post(flowd, body)

    assert (status, document["code"]) == (400, "invalid_workflow")


def wide(width: int) -> list[dict[str, Any]]:
    middle = [{"id": f"n{at}", "handler": "noop", "dependencies": ["a"]} for at in range(width)]
    names = [str(one["id"]) for one in middle]
    return [
        {"id": "a", "handler": "noop"},
        *middle,
        {"id": "z", "handler": "noop", "dependencies": names},
    ]


def long(length: int) -> list[dict[str, Any]]:
    return [
        {"id": f"n{at}", "handler": "noop", "dependencies": [f"n{at - 1}"] if at else []}
        for at in range(length)
    ]


@pytest.mark.parametrize("nodes", [long(10_000), wide(9_998)], ids=["chain", "star"])
def test_i03_ten_thousand_nodes_fit_into_a_body(flowd: Flowd, nodes: list[Any]) -> None:
    status, document = post(flowd, json.dumps({"name": "x", "dag": {"nodes": nodes}}).encode())

    assert (status, document.get("message")) == (200, "Workflow accepted")


HEAD = b"POST /workflow HTTP/1.1\r\nHost: localhost\r\n"


def test_i04_bodies_over_the_limit_are_refused_and_memory_stays_flat(
    flowd: Flowd, figure: Callable[[str], None]
) -> None:
    before = api_memory(flowd)
    announced = send(flowd, HEAD + b"Content-Length: 104857600\r\n\r\n" + b"x" * MIB)
    assert parsed(announced)[0] == 413

    def endless() -> bytes:
        with connect(flowd) as client:
            client.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n")
            piece = b"%x\r\n%b\r\n" % (MIB, b"x" * MIB)
            answers: list[bytes] = []
            reader = threading.Thread(target=lambda: answers.append(read_all(client)))
            reader.start()
            begun = time.monotonic()
            while reader.is_alive():
                assert time.monotonic() - begun < PATIENCE_S
                try:
                    client.sendall(piece)
                except OSError:
                    break
            reader.join(PATIENCE_S)
            return answers[0]

    for _ in range(3):
        assert b" 413 " in endless()
    growth = api_memory(flowd) - before
    assert growth < 64 * MIB
    figure(f"memory grew by {growth / MIB:.1f} MiB over 4 bodies without end")


@pytest.mark.parametrize(
    "path", ["/nope", "/workflows"], ids=["where there is nothing", "where nothing is taken"]
)
def test_i04_a_body_without_end_that_nobody_asked_for_is_cut(
    flowd: Flowd, figure: Callable[[str], None], path: str
) -> None:
    with connect(flowd) as client:
        head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
        client.sendall(head.encode())
        begun = time.monotonic()
        with pytest.raises(ConnectionError):
            while time.monotonic() - begun < PATIENCE_S:
                client.sendall(b"ffff\r\n" + b"x" * 0xFFFF + b"\r\n")
    figure(f"cut after {time.monotonic() - begun:.1f} s")


def test_i04_heads_that_do_not_come_are_closed_and_others_are_served_meanwhile(
    flowd: Flowd, figure: Callable[[str], None]
) -> None:
    # Cut where one more letter leaves it a head: in the path, in a name, in a value.
    head = b"GET /health HTTP/1.1\r\nHost: localhost\r\nX-Slow: "
    beginnings = [head[:length] for length in (5, 8, 23, 40, len(head))]
    slow = [connect(flowd) for _ in beginnings]
    begun = time.monotonic()
    for client, beginning in zip(slow, beginnings, strict=True):
        client.sendall(beginning)

    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    assert b'{"status":"ok"}' in send(flowd, ask)
    # A byte more, again and again, does not buy more time.
    drip_until_closed(slow)
    figure(f"5 of 5 closed, the last after {time.monotonic() - begun:.1f} s")
    for client in slow:
        client.close()


def drip_until_closed(clients: Collection[socket.socket]) -> None:
    """Send each a byte now and then, until the other end has closed all of them unanswered."""
    still_open = set(clients)
    deadline = time.monotonic() + PATIENCE_S
    while still_open:
        assert time.monotonic() < deadline, f"{len(still_open)} of them are still open"
        for client in still_open:
            with suppress(OSError):
                client.sendall(b"x")
        closed, _, _ = select.select(still_open, [], [], 0.05)
        for client in closed:
            with suppress(ConnectionError):
                assert client.recv(1) == b""
        still_open.difference_update(closed)


def test_i04_two_hosts_and_two_lengths_are_a_400(flowd: Flowd) -> None:
    for lines in (
        b"Host: localhost\r\nHost: localhost\r\n",
        b"Host: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
        b"Host: localhost\r\nContent-Length: 5\r\nContent-Length: 6\r\n",
        b"",
    ):
        answer = send(flowd, b"POST /workflow HTTP/1.1\r\n" + lines + b"\r\n0\r\n\r\n")
        assert parsed(answer)[0] == 400


def test_i04_connections_over_the_limit_are_told_and_cost_the_others_nothing(flowd: Flowd) -> None:
    kept = [connect(flowd) for _ in range(20)]
    ask = b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"
    for client in kept:
        client.sendall(ask)
        read_until(client, b'{"status":"ok"}')

    status, document = parsed(send(flowd, ask))

    assert (status, document["code"]) == (503, "too_many_connections")
    for client in kept:
        client.sendall(ask)
        read_until(client, b'{"status":"ok"}')
        client.close()
    wait_until(lambda: b" 200 " in send(flowd, ask.replace(b"\r\n\r\n", CLOSE)), "room")


CLOSE = b"\r\nConnection: close\r\n\r\n"


def post_while_others_ask(flowd: Flowd, body: bytes) -> tuple[int, dict[str, Any], int]:
    """The answer, and how many others were answered while it was made."""
    answers: list[bytes] = []
    request = b"POST /workflow HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
    request += b"Content-Length: %d\r\n\r\n" % len(body) + body

    def ask() -> None:
        with connect(flowd) as client:
            client.settimeout(240)
            client.sendall(request)
            answers.append(read_all(client))

    asking = threading.Thread(target=ask)
    asking.start()
    asked = 0
    while asking.is_alive():
        assert get(flowd, "/health") == 200
        asked += 1
    asking.join()
    return *parsed(answers[0]), asked


def get(flowd: Flowd, path: str) -> int:
    head = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
    return int(send(flowd, head.encode()).split()[1])


def test_u06_a_schema_that_takes_for_ever_holds_up_nobody_and_is_given_up(flowd: Flowd) -> None:
    """Draft 4 has the items of an enum compared all with all: these take a minute."""
    schema = {
        "$schema": "http://json-schema.org/draft-04/schema#",
        "enum": [{"a": at} for at in range(20_000)],
    }
    answer_format = {"type": "json_schema", "json_schema": {"schema": schema}}
    config = {"prompt": "x", "response_format": answer_format}
    node = {"id": "A", "handler": "llm", "config": config}
    body = json.dumps({"name": "t", "dag": {"nodes": [node]}}, separators=(",", ":")).encode()
    status, answer, asked = post_while_others_ask(flowd, body)

    assert (status, answer["errors"][0]["code"]) == (400, "too_costly")
    # As long as the loop is held up it answers one.
    assert asked > 20


def test_u06_the_largest_definition_holds_up_nobody(
    run_flowd: Callable[..., Flowd], tmp_path: Path
) -> None:
    (tmp_path / "flowd.toml").write_text(CONFIG.replace("[redis]", "body_max_mb = 16\n[redis]"))
    flowd = run_flowd("start", "--workers", "0")
    flowd.wait_for_status(lambda status: "http" in status["api"], "the address")
    nodes = [
        {"id": f"n{at}", "handler": "noop", "config": {"x": "y" * 20}, "dependencies": []}
        for at in range(100_000)
    ]
    body = json.dumps({"name": "t", "dag": {"nodes": nodes}}, separators=(",", ":")).encode()
    status, answer, asked = post_while_others_ask(flowd, body)

    assert status == 200
    assert asked > 20
    for what in ("summary", "results", "nodes", "definition", "explain"):
        assert get(flowd, f"/workflows/{answer['execution_id']}/{what}") == 200
    assert '"child.died"' not in flowd.stderr
