"""Reading a body within bounds of size and time."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from flowd.api.http import body
from flowd.api.http.body import BodyTooLarge, BodyTooSlow, read_body


class Client:
    """Sends messages one by one, and then falls silent."""

    def __init__(self, messages: Sequence[Message], **headers: str) -> None:
        self.left = list(messages)
        self.headers = [
            (name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()
        ]

    async def receive(self) -> Message:
        if not self.left:
            await asyncio.Event().wait()
        return self.left.pop(0)

    def read(self) -> bytes:
        scope = {"type": "http", "method": "POST", "headers": self.headers}
        return asyncio.run(read_body(Request(scope, self.receive), 10))


def chunk(content: bytes, *, is_last: bool = False) -> Message:
    return {"type": "http.request", "body": content, "more_body": not is_last}


@pytest.fixture(autouse=True)
def small_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(body, "BODY_S_MAX", 0.2)
    monkeypatch.setattr(body, "REFUSED_BODY_S_MAX", 0.02)


def test_chunks_up_to_the_limit_are_joined() -> None:
    client = Client([chunk(b"abcde"), chunk(b""), chunk(b"fghij", is_last=True)])
    assert client.read() == b"abcdefghij"


def test_a_body_that_grows_over_the_limit_is_read_to_its_end_and_refused() -> None:
    client = Client([chunk(b"a" * 11), chunk(b"b" * 99), chunk(b"", is_last=True), chunk(b"next")])
    with pytest.raises(BodyTooLarge):
        client.read()
    assert len(client.left) == 1


def test_a_body_announced_as_too_long_is_read_to_its_end_and_refused() -> None:
    client = Client([chunk(b"a"), chunk(b"b", is_last=True), chunk(b"next")], content_length="11")
    with pytest.raises(BodyTooLarge):
        client.read()
    assert len(client.left) == 1


def test_a_client_that_asks_first_is_refused_before_it_sends() -> None:
    client = Client([chunk(b"never sent")], content_length="11", expect="100-continue")
    with pytest.raises(BodyTooLarge):
        client.read()
    assert len(client.left) == 1


def test_a_refused_body_without_end_is_read_for_a_while_only() -> None:
    with pytest.raises(BodyTooLarge):
        Client([chunk(b"a" * 11)]).read()


def test_a_body_that_does_not_arrive_in_time_is_refused() -> None:
    with pytest.raises(BodyTooSlow):
        Client([chunk(b"abc")]).read()


def test_a_client_that_leaves_is_noticed() -> None:
    with pytest.raises(ClientDisconnect):
        Client([chunk(b"abc"), {"type": "http.disconnect"}]).read()
