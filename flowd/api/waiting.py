"""Wait for the end of an execution, on the feed of events: thousands may wait for one reader."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import Final

from flowd.api.event_feed import EventFeed, Subscription
from flowd.backoff import growing_pauses
from flowd.errors import StoreUnavailable
from flowd.store import Store
from flowd.store.events import END_TYPES, StoredEvent
from flowd.workflow.states import ExecutionState

# Without events the status is asked for, at pauses that grow.
LOOK_EVERY_S: Final = 0.02
LOOK_EVERY_S_MAX: Final = 1.0


class Waiting:
    def __init__(self, store: Store, feed: EventFeed) -> None:
        self._executions = store.executions
        self._feed = feed

    async def wait_for_end(self, execution_id: str, timeout_s: float) -> ExecutionState | None:
        """The state it ended in; None when it did not in time, or the API stops.

        Raises UnknownExecution.
        """
        end_s = time.monotonic() + timeout_s
        try:
            subscription = await self._feed.follow(execution_id, END_TYPES)
        except StoreUnavailable:
            return await self._look_for_end(execution_id, end_s)
        with contextlib.closing(subscription):
            # Asked for only now that nothing it does is missed.
            status = await self._executions.execution_status(execution_id)
            if status.is_terminal:
                return status
            ended = await _listen_for_end(subscription, end_s)
        if ended or self._feed.is_closed or time.monotonic() >= end_s:
            return ended
        return await self._look_for_end(execution_id, end_s)

    async def _look_for_end(self, execution_id: str, end_s: float) -> ExecutionState | None:
        pauses = growing_pauses(LOOK_EVERY_S, LOOK_EVERY_S_MAX)
        while True:
            status = await self._executions.execution_status(execution_id)
            if status.is_terminal:
                return status
            left_s = end_s - time.monotonic()
            if left_s <= 0 or self._feed.is_closed:
                return None
            await asyncio.sleep(min(next(pauses), left_s))


async def _listen_for_end(subscription: Subscription, end_s: float) -> ExecutionState | None:
    """None when it was not heard of in time, or when events are lost."""
    while (left_s := end_s - time.monotonic()) > 0:
        for item in await subscription.read(left_s):
            if not isinstance(item, StoredEvent):
                return None
            return ExecutionState(item.type.removeprefix("execution.").upper())
        if subscription.is_over:
            return None
    return None
