"""The connections of the client that blocks, against a server that says what a test has it say."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from flowd.client import ApiError, Client, ConnectionFailed

OK = b'HTTP/1.1 200 OK\r\nContent-Length: 21\r\n\r\n{"status": "RUNNING"}'
TOO_LARGE = b'HTTP/1.1 400 Bad Request\r\nContent-Length: 23\r\n\r\n{"detail": "too large"}'


@contextmanager
def server(answer: Callable[[socket.socket], None]) -> Iterator[int]:
    """Calls `answer` with one connection after the other; its port."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    connection, _ = listener.accept()
                except OSError:
                    return
                with connection:
                    answer(connection)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield listener.getsockname()[1]
        finally:
            # Closing alone would leave `accept` waiting.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def head_of(connection: socket.socket) -> str:
    received = b""
    while b"\r\n\r\n" not in received:
        received += connection.recv(65536)
    return received.decode()


def test_a_refusal_is_heard_by_one_who_has_not_sent_everything() -> None:
    def refuse(connection: socket.socket) -> None:
        head_of(connection)
        # And hang up: the body does not fit into what the kernel keeps.
        connection.sendall(TOO_LARGE)

    with (
        server(refuse) as port,
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(ApiError, match="too large"),
    ):
        client.submit(b" " * 64 * 2**20)


def test_one_connection_carries_many_calls_and_one_that_was_closed_none() -> None:
    calls_of: list[int] = []

    def answer(connection: socket.socket) -> None:
        """Twice, then hang up."""
        calls_of.append(0)
        for _ in range(2):
            head_of(connection)
            connection.sendall(OK)
            calls_of[-1] += 1

    with server(answer) as port, Client(f"http://127.0.0.1:{port}") as client:
        for _ in range(4):
            assert client.status("a") == "RUNNING"

    assert calls_of == [2, 2]


def test_what_changes_nothing_is_asked_again_where_a_kept_connection_ends_meanwhile() -> None:
    asked: list[str] = []

    def answer_once(connection: socket.socket) -> None:
        """And hear the next question out, to hang up then."""
        for reply in (OK, b""):
            asked.append(head_of(connection).split(" ", 1)[0])
            connection.sendall(reply)

    with server(answer_once) as port, Client(f"http://127.0.0.1:{port}") as client:
        assert client.status("a") == "RUNNING"
        assert client.status("a") == "RUNNING"
        with pytest.raises(ConnectionFailed):
            client.trigger("a", {})

    assert asked == ["GET", "GET", "GET", "POST"]


def test_an_answer_that_ends_too_soon_is_a_connection_that_failed() -> None:
    def cut(connection: socket.socket) -> None:
        head_of(connection)
        connection.sendall(OK[:-3])

    with (
        server(cut) as port,
        Client(f"http://127.0.0.1:{port}") as client,
        pytest.raises(ConnectionFailed),
    ):
        client.status("a")


def test_a_proxy_is_asked_for_the_whole_address(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[str] = []

    def answer(connection: socket.socket) -> None:
        heard.append(head_of(connection))
        connection.sendall(OK)

    with server(answer) as port:
        monkeypatch.setenv("http_proxy", f"http://a:b@127.0.0.1:{port}")
        with Client("http://flowd.invalid/below", "secret") as client:
            assert client.status("a") == "RUNNING"

    (head,) = heard
    assert head.startswith("GET http://flowd.invalid/below/workflows/a HTTP/1.1\r\n")
    assert {"proxy-authorization: Basic YTpi", "authorization: Bearer secret"} <= set(
        head.split("\r\n")
    )


def test_a_proxy_that_does_not_speak_http_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "socks5://127.0.0.1:1080")

    with pytest.raises(ValueError, match="socks5"):
        Client("https://flowd.invalid")
    Client("http://127.0.0.1:8000").close()
