"""Hand on what happens: one reader of the stream per process, however many clients listen.

A subscription first reads what lies behind its position from the stream itself, page by page, and
joins the live feed at the moment it has caught up with it. So it misses nothing and gets nothing
twice, and only a client that is slow while it is live has to be cut.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from typing import Final, NamedTuple, Protocol

from flowd.api.event_bell import Bell
from flowd.errors import StoreError
from flowd.log import get_logger
from flowd.store.events import (
    BEGINNING,
    END_TYPES,
    Entry,
    Events,
    Page,
    Position,
    StoredEvent,
    behind,
    execution_ids,
    parse_event,
)
from flowd.workflow.ids import time_of

log = get_logger(__name__)

WAITING_MAX: Final = 10_000
PAUSE_S: Final = 0.2
PAUSE_S_MAX: Final = 2.0
# An execution's id has the time of its submission, by a clock that need not be that of Redis.
CLOCKS_APART_MS_MAX: Final = 60_000


class Gap(NamedTuple):
    """Events are lost to this reader: those behind `after`, up to the `oldest` that is kept."""

    after: str | None
    oldest: str | None


def before_submission(execution_id: str) -> Position:
    """A position before anything an execution did."""
    submitted_ms = time_of(execution_id)
    return BEGINNING._replace(ms=max(0, submitted_ms - CLOCKS_APART_MS_MAX))


class Subscription(Protocol):
    """`read` until it `is_over` and nothing is waiting: no more comes then.

    `expelled` is set when its client has to go: it is too slow, or the API stops.
    """

    is_over: bool
    expelled: asyncio.Event

    def has_waiting(self) -> bool: ...

    async def read(self, patience_s: float) -> list[StoredEvent | Gap]:
        """What is next, as soon as there is something; empty when nothing came in time."""
        ...

    def close(self) -> None: ...


class EventFeed:
    """The reader begins with the first subscription and ends with the last."""

    def __init__(self, events: Events) -> None:
        self._events = events
        self._position = BEGINNING
        self._falls = 0
        self._tail: asyncio.Task[None] | None = None
        self._subscriptions: set[_Subscription] = set()
        # Those that are live, by the execution they are about; None is about all.
        self._live: dict[str | None, set[_Subscription]] = defaultdict(set)
        self._bells: set[Bell] = set()
        self._is_closed = False

    @property
    def is_closed(self) -> bool:
        return self._is_closed

    async def follow(
        self, execution_id: str | None = None, types: frozenset[str] = frozenset()
    ) -> Subscription:
        """What happens from now on. No types are all. Raises StoreUnavailable."""
        await self._start()
        return self._subscribe(_Subscription(self, execution_id, self._position, types))

    async def resume(
        self,
        after: Position,
        execution_id: str | None = None,
        types: frozenset[str] = frozenset(),
        *,
        has_ended: bool = False,
    ) -> Subscription:
        """What happened behind an event, and from then on; it is over at the execution's end.

        `has_ended` says that all it did lies in the past.
        """
        await self._start()
        newest = await self._events.newest() if after > self._position else self._position
        subscription = _Subscription(self, execution_id, after, types, has_ended=has_ended)
        if after[:2] > newest[:2]:
            # An id of another Redis, or of one that was emptied.
            subscription.give_up_position()
        return self._subscribe(subscription)

    async def replay(
        self, execution_id: str, types: frozenset[str] = frozenset(), *, has_ended: bool
    ) -> Subscription:
        """All that is kept of an execution, and what it does from then on, to its end."""
        await self._start()
        after = before_submission(execution_id)
        return self._subscribe(
            _Subscription(self, execution_id, after, types, has_ended=has_ended, is_replay=True)
        )

    async def ring(self) -> Bell:
        """That something happens from now on, without what. Raises StoreUnavailable."""
        bell = Bell(self._events, await self._events.newest(), self._bells.discard)
        self._bells.add(bell)
        if self._is_closed:
            bell.expel()
        return bell

    def close(self) -> None:
        """End every subscription, now and later."""
        self._is_closed = True
        for subscription in list(self._subscriptions):
            subscription.expel()
        for bell in list(self._bells):
            bell.expel()

    async def _start(self) -> None:
        if self._tail is None:
            newest = await self._events.newest()
            if self._tail is None:
                self._position = newest
                self._tail = asyncio.create_task(self._follow_stream())

    def _subscribe(self, subscription: _Subscription) -> _Subscription:
        # The last of the others may have left while this one asked for the newest id.
        if self._tail is None:
            self._tail = asyncio.create_task(self._follow_stream())
        self._subscriptions.add(subscription)
        if self._is_closed:
            subscription.expel()
        return subscription

    async def _follow_stream(self) -> None:
        tail = self._events.open_tail()
        failovers = self._events.failovers
        pause_s = 0.0
        try:
            while True:
                try:
                    entries = await tail.next(self._position)
                    # Another connection may have met the new primary, and this one have gone along.
                    has_failed_over = self._events.failovers != failovers
                    if pause_s or has_failed_over:
                        await self._look_for_gap(is_certain=has_failed_over)
                        failovers = self._events.failovers
                except StoreError as error:
                    if not pause_s:
                        log.error("redis.lost", reason=str(error))
                    pause_s = min(max(PAUSE_S, 2 * pause_s), PAUSE_S_MAX)
                    await asyncio.sleep(pause_s)
                    continue
                if pause_s:
                    log.warning("redis.reconnected")
                pause_s = 0.0
                for entry in entries:
                    self._hand_on(entry)
        finally:
            if asyncio.current_task() is self._tail:
                self._tail = None
                for subscription in list(self._subscriptions):
                    subscription.expel()
            await tail.close()

    async def _look_for_gap(self, *, is_certain: bool) -> None:
        """A replica that became the primary may have lost events that were handed on, and those it
        has instead may be of the same time."""
        page = await self._events.read(self._position, 1)
        if self._position != BEGINNING and (is_certain or page.is_broken(self._position)):
            gap = Gap(self._position.entry_id, page.oldest_id)
            if is_certain:
                self._position = min(self._position, await self._events.newest())
                self._falls += 1
                for subscription in self._subscriptions:
                    subscription.fall_back(gap)
                return
            for subscriptions in self._live.values():
                for subscription in subscriptions:
                    subscription.offer(gap)

    def _hand_on(self, entry: Entry) -> None:
        self._position = behind(entry[0])
        to_all = self._live.get(None, ())
        for place, execution_id in execution_ids(entry):
            to_some = self._live.get(execution_id, ())
            if to_some or to_all:
                event = parse_event(entry, self._position, place)
                for subscription in (*to_some, *to_all):
                    subscription.offer(event)

    # For subscriptions only.

    @property
    def position(self) -> Position:
        """Behind the entry that was handed on last."""
        return self._position

    @property
    def falls(self) -> int:
        """How often the position may have become an earlier one."""
        return self._falls

    def join(self, subscription: _Subscription) -> None:
        self._live[subscription.execution_id].add(subscription)

    async def read(self, after: Position) -> Page:
        return await self._events.read(after)

    def forget(self, subscription: _Subscription) -> None:
        self._subscriptions.discard(subscription)
        live = self._live.get(subscription.execution_id, set())
        live.discard(subscription)
        if not live:
            self._live.pop(subscription.execution_id, None)
        if not self._subscriptions and self._tail is not None:
            tail, self._tail = self._tail, None
            tail.cancel()


class _Subscription:
    def __init__(
        self,
        feed: EventFeed,
        execution_id: str | None,
        after: Position,
        types: frozenset[str],
        *,
        has_ended: bool = False,
        is_replay: bool = False,
    ) -> None:
        self.execution_id = execution_id
        self.is_over = False
        self.expelled = asyncio.Event()
        self._feed = feed
        self._position = after
        self._types = types
        self._has_ended = has_ended
        # A replay begins somewhere before the first event: that nothing is kept there is no loss.
        self._is_first_awaited = is_replay
        self._is_live = False
        self._waiting: list[StoredEvent | Gap] = []
        self._news = asyncio.Event()

    async def read(self, patience_s: float) -> list[StoredEvent | Gap]:
        if not self._is_live:
            await self._catch_up(patience_s)
        if not self._waiting and not self.is_over:
            self._news.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._news.wait()
        items, self._waiting = self._waiting, []
        return items

    def close(self) -> None:
        """No more is wanted. Safe to call twice."""
        self.end()
        self._feed.forget(self)

    def has_waiting(self) -> bool:
        return bool(self._waiting)

    def expel(self) -> None:
        self.expelled.set()
        self.end()

    def end(self) -> None:
        self.is_over = True
        self._news.set()

    def give_up_position(self) -> None:
        """Begin with the oldest event that is kept."""
        self._waiting.append(Gap(self._position.event_id, None))
        self._position = BEGINNING

    def fall_back(self, gap: Gap) -> None:
        """What it has read last may be lost, and what comes may have earlier ids."""
        if not self._is_first_awaited:
            self.offer(gap if self._is_live else gap._replace(after=self._position.entry_id))
        self._position = min(self._position, self._feed.position)

    def offer(self, item: StoredEvent | Gap) -> None:
        """One more, in order; what was read from the stream already is not taken again."""
        if self.is_over:
            return
        if isinstance(item, StoredEvent):
            if item.position <= self._position:
                return
            self._position = item.position
            is_end = self.execution_id is not None and item.type in END_TYPES
            if not self._types or item.type in self._types:
                self._waiting.append(item)
        else:
            is_end = False
            self._waiting.append(item)
        if self._is_live and len(self._waiting) > WAITING_MAX:
            self._waiting.clear()
            self.expel()
        elif is_end:
            self.end()
        elif self._waiting:
            self._news.set()

    async def _catch_up(self, patience_s: float) -> None:
        """Read pages until there is something to hand out, or nothing left to read."""
        while not self._waiting and not self.is_over:
            if self._position >= self._feed.position and not self._has_ended:
                self._note_no_first()
                self._is_live = True
                self._feed.join(self)
                return
            # Handed on before the page is asked for: the last page holds all up to here.
            reached, falls = self._feed.position, self._feed.falls
            try:
                page = await self._feed.read(self._position)
            except StoreError:
                # The feed itself says so in the log, and a client need not know.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(min(PAUSE_S_MAX, patience_s)):
                        await self._news.wait()
                return
            if self._feed.falls == falls:
                self._take(page, reached)

    def _take(self, page: Page, reached: Position) -> None:
        after = self._position
        if not self._is_first_awaited and after != BEGINNING and page.is_broken(after):
            self._waiting.append(Gap(after.event_id, page.oldest_id))
        for entry in page.entries:
            end = behind(entry[0])
            for place, execution_id in execution_ids(entry):
                if self.execution_id in (None, execution_id):
                    event = parse_event(entry, end, place)
                    if event.type != "execution.submitted":
                        self._note_no_first()
                    self._is_first_awaited = False
                    self.offer(event)
            self._position = end
        if page.is_last:
            self._position = max(self._position, reached)
            if self._has_ended:
                self._note_no_first()
                self.end()

    def _note_no_first(self) -> None:
        """The beginning of a replay is not there any more."""
        if self._is_first_awaited:
            self._is_first_awaited = False
            self._waiting.append(Gap(None, None))
