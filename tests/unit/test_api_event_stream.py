"""How a stream of events is written (HTML Living Standard 9.2)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from flowd.api.event_feed import Gap
from flowd.api.http.event_stream import EventStream, format_event
from flowd.api.log_feed import LogEvent, LogPosition, format_log_event
from flowd.store.events import Position, StoredEvent

AT = Position(1764000000000, 0, 2)


@pytest.mark.parametrize(
    ("write", "item", "block"),
    [
        (format_event, Gap("1-0", "5-0"), b'event: gap\ndata: {"after":"1-0","oldest":"5-0"}'),
        (format_event, Gap(None, None), b'event: gap\ndata: {"after":null,"oldest":null}'),
        (
            format_event,
            StoredEvent(AT, "node.failed", "e"),
            b'id: 1764000000000-0.2\nevent: node.failed\ndata: {"execution_id":"e","at_ms":%d}'
            % AT.ms,
        ),
        (
            format_log_event,
            LogEvent("line", {"text": "a\nb"}, LogPosition(2, 7)),
            b'id: 2-7\nevent: line\ndata: {"text":"a\\nb"}',
        ),
        (format_log_event, LogEvent("end", {}, None), b"event: end\ndata: {}"),
    ],
)
def test_each_event_is_a_block_that_ends_with_an_empty_line(
    write: Callable[[Any], bytes], item: Any, block: bytes
) -> None:
    assert write(item) == block + b"\n\n"


class Waiting:
    """A subscription that reads what was put into it."""

    def __init__(self) -> None:
        self.is_over = False
        self.expelled = asyncio.Event()
        self.waiting: list[bytes] = []

    def has_waiting(self) -> bool:
        return bool(self.waiting)

    async def read(self, patience_s: float) -> list[bytes]:  # noqa: ARG002
        items, self.waiting = self.waiting, []
        return items

    def close(self) -> None:
        self.is_over = True


@pytest.mark.parametrize("has_to_go", [False, True])
async def test_what_came_last_while_a_slow_client_read_is_sent_before_the_end(
    has_to_go: bool,
) -> None:
    subscription, sent = Waiting(), b""

    async def stays() -> Any:
        await asyncio.Event().wait()

    async def send(message: Any) -> None:
        nonlocal sent
        sent += message.get("body", b"")
        if b"the first" in sent and not subscription.is_over:
            subscription.waiting.append(b"the last")
            subscription.is_over = True
            if has_to_go:
                subscription.expelled.set()

    stream = EventStream(subscription, [b"the first"], lambda item: item)
    await stream({"type": "http", "method": "GET"}, stays, send)

    assert sent.endswith(b"the firstthe last")
