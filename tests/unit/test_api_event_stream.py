"""How a stream of events is written (HTML Living Standard 9.2)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from flowd.api.event_feed import Gap
from flowd.api.http.event_stream import format_event
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
