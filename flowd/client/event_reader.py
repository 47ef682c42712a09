"""Server-sent events as a client reads them, over as many connections as it takes."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from flowd.client import calls
from flowd.client.calls import Call, Json
from flowd.client.errors import ConnectionFailed, OtherServer, is_for_now

END_EVENTS: Final = frozenset({"execution.completed", "execution.failed", "execution.cancelled"})
LOG_ENDS: Final = frozenset({"end"})
FIRST_PAUSE_S: Final = 0.1
PAUSE_S_MAX: Final = 5.0
EMPTY_STREAMS_MAX: Final = 2


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened. `id` is where a stream goes on behind it."""

    id: str
    type: str
    data: Json


class EventReader:
    """Bytes of one connection in, events out (the HTML standard, server-sent events)."""

    def __init__(self, last_event_id: str | None = None) -> None:
        self.last_event_id = last_event_id
        self.begin()

    def begin(self) -> None:
        """Of a new connection; what the old one did not end is not taken for seen."""
        self._rest = b""
        self._clear()

    def _clear(self) -> None:
        self._id, self._type, self._data = "", "message", ""

    def read(self, chunk: bytes) -> Iterator[Event]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines:
            event = self.feed(line.removesuffix(b"\r").decode("utf-8", "replace"))
            if event is not None:
                yield event

    def feed(self, line: str) -> Event | None:
        """The event that this line ends."""
        if not line:
            event = Event(self._id, self._type, json.loads(self._data)) if self._data else None
            if self._id:
                self.last_event_id = self._id
            self._clear()
            return event
        name, _, value = line.partition(":")
        value = value.removeprefix(" ")
        if name == "id":
            self._id = value
        elif name == "event":
            self._type = value
        elif name == "data":
            self._data += value
        return None


def of_events(url: str, execution_id: str | None, last_event_id: str | None) -> Listener:
    """Of one execution to its end, or of all for ever."""
    ends = frozenset[str]() if execution_id is None else END_EVENTS
    return Listener(url, partial(calls.events, execution_id), ends, last_event_id)


def of_logs(url: str, execution_id: str, node_id: str | None, attempt: int | None) -> Listener:
    """Of what a node says, or all nodes of an execution."""
    call = partial(calls.follow_logs, execution_id, node_id, attempt)
    return Listener(url, call, LOG_ENDS, None)


class Listener:
    """When to connect, when to do so again, and when it is over. One who has heard nothing yet
    gives up at once: it may have the wrong address."""

    def __init__(
        self,
        url: str,
        call: Callable[[str | None], Call],
        ends: frozenset[str],
        last_event_id: str | None,
    ) -> None:
        """`call` is what to ask, behind the last event; the types in `ends` are the last: none is
        for what never ends."""
        self._url = url
        self._call = call
        self._ends = ends
        self._reader = EventReader(last_event_id)
        self._has_connected = False
        self._pause_s = FIRST_PAUSE_S
        self._empty_streams = 0
        self.is_over = False

    def next_call(self) -> Call:
        self._reader.begin()
        self._empty_streams += 1
        return self._call(self._reader.last_event_id)

    def is_stream(self, status: int, content_type: str) -> bool:
        """Whether events follow. If not, `refuse` says what to make of it. Raises OtherServer for
        what is neither."""
        if status == 200 and not content_type.startswith("text/event-stream"):
            raise OtherServer(self._url, "what it sends are no events")
        if status == 200:
            self._has_connected = True
        return status == 200

    def refuse(self, status: int, body: bytes) -> None:
        """Raises ApiError unless it is for now. 204 says that all was seen before."""
        if status == 204:
            self.is_over = True
        elif not (self._has_connected and is_for_now(status)):
            calls.parse(self._url, status, body)
        self._empty_streams = 0

    def read(self, chunk: bytes) -> Iterator[Event]:
        for event in self._reader.read(chunk):
            self._pause_s = FIRST_PAUSE_S
            self._empty_streams = 0
            # Said before it is handed on: who takes it may stop there.
            self.is_over = event.type in self._ends
            yield event
            if self.is_over:
                return

    def end(self) -> None:
        """The stream was closed in good order: by a flowd that stops, or because of an execution
        that has ended nothing is kept any more. The latter happens again at once."""
        if self._ends and self._empty_streams >= EMPTY_STREAMS_MAX:
            self.is_over = True

    def break_off(self, error: Exception) -> None:
        """The connection broke, or there was none."""
        self._empty_streams = 0
        if not self._has_connected:
            raise ConnectionFailed(f"{self._url} does not answer: {error}") from error

    def pause_s(self) -> float:
        """How long to wait before connecting again: the longer, the longer nothing comes."""
        pause_s = self._pause_s
        self._pause_s = min(2 * pause_s, PAUSE_S_MAX)
        return pause_s
