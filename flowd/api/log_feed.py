"""Follow what nodes say: one node, attempt after attempt, or all nodes of an execution."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final, NamedTuple

import orjson

from flowd.api.event_feed import EventFeed
from flowd.errors import CorruptExecution, StoreError, UnknownExecution
from flowd.store import Store
from flowd.store.logs import LogLine, LogName
from flowd.workflow.states import NodeState

POLL_S: Final = 0.2
# Logs that are looked at in one round; the others have grown no less in the next.
_LOGS_PER_ROUND: Final = 200
# An entry has lines that are older than itself.
_FLUSH_MS: Final = 1000
_POSITION: Final = re.compile(r"(\d{1,15})-(\d{1,9})", re.ASCII)


class LogPosition(NamedTuple):
    """Behind an entry of an attempt of a node; of an execution, the time in ms, and nothing."""

    attempt: int
    number: int


def parse_position(text: str) -> LogPosition | None:
    found = _POSITION.fullmatch(text)
    return found and LogPosition(int(found[1]), int(found[2]))


class LogEvent(NamedTuple):
    type: str
    data: dict[str, Any]
    position: LogPosition | None


def format_log_event(event: LogEvent) -> bytes:
    head = b"id: %d-%d\n" % event.position if event.position else b""
    return b"%bevent: %b\ndata: %b\n\n" % (head, event.type.encode(), orjson.dumps(event.data))


def shown_line(line: LogLine) -> dict[str, Any]:
    return {"at_ms": line.at_ms, "stream": line.stream, "text": line.text}


class LogSubscription:
    """What an event stream reads: events until the node or the execution has ended."""

    def __init__(self, store: Store, feed: EventFeed, execution_id: str) -> None:
        self.is_over = False
        self.expelled = asyncio.Event()
        self._store = store
        self._feed = feed
        self._execution_id = execution_id
        self._read: dict[LogName, int] = {}
        self._dropped: dict[LogName, int] = {}

    def has_waiting(self) -> bool:
        return False

    def close(self) -> None:
        self.is_over = True

    async def read(self, patience_s: float) -> list[LogEvent]:
        """What is next, as soon as there is something; empty when nothing came in time."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_s
        while not self.is_over:
            if self._feed.is_closed:
                self.expelled.set()
                self.is_over = True
                break
            try:
                events = await self._look()
            except (UnknownExecution, CorruptExecution):
                events = [self._end(None)]
            except StoreError:
                # A client need not know: what it has not seen is still to come.
                events = []
            if events or self.is_over:
                return events
            left_s = deadline - loop.time()
            if left_s <= 0:
                break
            await asyncio.sleep(min(POLL_S, left_s))
        return []

    async def _look(self) -> list[LogEvent]:
        raise NotImplementedError

    def _end(self, state: str | None) -> LogEvent:
        self.is_over = True
        return LogEvent("end", {"state": state}, None)

    async def _news(self, name: LogName) -> tuple[list[LogEvent], bool]:
        """What one attempt has said since, and whether that is all."""
        some = await self._store.nodes.logs.read(self._execution_id, name, self._read.get(name, 0))
        before = self._dropped.get(name, 0)
        self._read[name] = some.last
        events: list[LogEvent] = []
        about = {"node_id": name.node_id, "attempt": name.attempt}
        if some.gaps and some.dropped > before:
            self._dropped[name] = some.dropped
            events.append(LogEvent("dropped", {**about, "lines": some.dropped - before}, None))
        if some.lines:
            lines = [shown_line(one) for one in self._wanted(some.lines)]
            events.append(
                LogEvent("lines", {**about, "lines": lines}, self._position(name, some.last))
            )
        return events, some.is_last

    def _wanted(self, lines: list[LogLine]) -> Iterable[LogLine]:
        return lines

    def _position(self, name: LogName, number: int) -> LogPosition | None:
        return LogPosition(name.attempt, number)


class NodeLogSubscription(LogSubscription):
    """One node, from the newest attempt that has a log; or one attempt of it."""

    def __init__(
        self,
        store: Store,
        feed: EventFeed,
        execution_id: str,
        node_id: str,
        attempt: int | None,
        after: LogPosition | None,
    ) -> None:
        super().__init__(store, feed, execution_id)
        self._node_id = node_id
        self._only = attempt
        self._first = after.attempt if after else attempt
        if after:
            self._read[LogName(node_id, after.attempt)] = after.number

    async def _look(self) -> list[LogEvent]:
        states = await self._store.nodes.states(self._execution_id, [self._node_id])
        state = states[self._node_id]
        # What stands there afterwards has everything that was said before that state.
        attempts = await self._store.nodes.logs.attempts(self._execution_id, self._node_id)
        await self._store.executions.execution_status(self._execution_id)
        newest = (attempts[-1].record.attempt or 0) if attempts else 0
        if self._first is None and attempts:
            spoken = [one.record.attempt for one in attempts if one.has_log]
            self._first = (spoken[-1] if spoken else None) or newest
        events, is_all = [], True
        for attempt in attempts:
            number = attempt.record.attempt or 0
            if self._is_wanted(number):
                some, is_last = await self._news(LogName(self._node_id, number))
                events += some
                is_all = is_all and is_last
        if is_all and self._has_ended(state, newest):
            events.append(self._end(state))
        return events

    def _is_wanted(self, number: int) -> bool:
        if self._only is not None:
            return number == self._only
        return self._first is not None and number >= self._first

    def _has_ended(self, state: NodeState | None, newest: int) -> bool:
        if state is None or state.is_terminal:
            return True
        if self._only is None:
            return False
        is_between = state in (NodeState.RETRYING, NodeState.WAITING)
        return newest > self._only or (newest == self._only and is_between)


class ExecutionLogSubscription(LogSubscription):
    """All nodes of an execution, as they speak. Taken up again, it may repeat a second."""

    def __init__(
        self, store: Store, feed: EventFeed, execution_id: str, after: LogPosition | None
    ) -> None:
        super().__init__(store, feed, execution_id)
        self._since_ms = self._from_ms = after.attempt if after else 0

    async def _look(self) -> list[LogEvent]:
        status = await self._store.executions.execution_status(self._execution_id)
        names, newest_ms = await self._store.nodes.logs.grown(
            self._execution_id, self._since_ms, _LOGS_PER_ROUND
        )
        events, is_all = [], len(names) < _LOGS_PER_ROUND
        for name in names:
            some, is_last = await self._news(name)
            events += some
            is_all = is_all and is_last
        if is_all or (len(names) == _LOGS_PER_ROUND and newest_ms > self._since_ms):
            self._since_ms = newest_ms
        if is_all and not events and status.is_terminal:
            events = [self._end(status)]
        return events

    def _wanted(self, lines: list[LogLine]) -> Iterator[LogLine]:
        return (one for one in lines if one.at_ms >= self._from_ms - _FLUSH_MS)

    def _position(self, _name: LogName, _number: int) -> LogPosition:
        return LogPosition(self._since_ms, 0)
