"""What a subscription hears of when another Redis goes on with events of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from flowd.api.event_feed import EventFeed, Gap, Subscription
from flowd.store.events import BEGINNING, Entry, Page, Position, StoredEvent, behind

PAGE = 2


class Stream:
    """Stands for `Events` and for its tail; `told` ends the wait of the tail, and `waits` says that
    it has begun one."""

    def __init__(self, *entry_ids: str) -> None:
        self.failovers = 0
        self.told = asyncio.Event()
        self.waits = asyncio.Event()
        self.entries = [entry(one) for one in entry_ids]

    def append(self, entry_id: str) -> None:
        self.entries.append(entry(entry_id))
        self.told.set()

    async def fail_over(self, *entry_ids: str) -> None:
        """Returns when the feed has noticed."""
        await asyncio.wait_for(self.waits.wait(), 10)
        self.entries = [entry(one) for one in entry_ids]
        self.failovers += 1
        self.waits.clear()
        self.told.set()
        await asyncio.wait_for(self.waits.wait(), 10)

    def open_tail(self) -> Any:
        return self

    async def next(self, after: Position) -> list[Entry]:
        self.waits.set()
        await self.told.wait()
        self.told.clear()
        return [one for one in self.entries if behind(one[0]) > after]

    async def newest(self) -> Position:
        return behind(self.entries[-1][0]) if self.entries else BEGINNING

    async def read(self, after: Position, count_max: int = PAGE) -> Page:
        found = [one for one in self.entries if behind(one[0]) > after][:count_max]
        return Page(found, len(found) < count_max, self.entries[0][0])

    async def close(self) -> None:
        pass


def entry(entry_id: str) -> Entry:
    return entry_id, ["node.completed", "x a 1 1 1 1 w"]


def feed_of(stream: Stream) -> EventFeed:
    return EventFeed(stream)  # type: ignore[arg-type]


async def take(subscription: Subscription, count: int) -> list[str | Gap]:
    """The ids of events, and gaps as they are."""
    found: list[str | Gap] = []
    async with asyncio.timeout(10):
        while len(found) < count:
            for item in await subscription.read(1.0):
                is_event = isinstance(item, StoredEvent)
                found.append(item.position.entry_id if is_event else item)
    return found


async def test_who_still_reads_the_past_is_told_that_events_may_be_lost():
    stream = Stream("1-0", "2-0", "3-0", "4-0", "5-0")
    subscription = await feed_of(stream).resume(behind("1-0"))
    assert await take(subscription, 2) == ["2-0", "3-0"]

    await stream.fail_over("1-0", "2-0", "6-0")

    assert await take(subscription, 2) == [Gap("3-0", "1-0"), "6-0"]
    subscription.close()


async def test_a_page_of_the_old_redis_that_comes_late_is_read_anew(monkeypatch):
    stream = Stream("1-0", "2-0", "3-0", "4-0", "5-0")
    feed = feed_of(stream)
    subscription = await feed.resume(behind("1-0"))
    read = stream.read

    async def read_amid_a_failover(after: Position, count_max: int = PAGE) -> Page:
        page = await read(after, count_max)
        monkeypatch.setattr(stream, "read", read)
        await stream.fail_over("1-0", "2-0", "6-0")
        return page

    monkeypatch.setattr(stream, "read", read_amid_a_failover)

    assert await take(subscription, 3) == [Gap("1-0", "1-0"), "2-0", "6-0"]
    subscription.close()


async def test_what_comes_after_the_gap_may_have_earlier_ids_than_what_was_lost():
    stream = Stream("1-0")
    subscription = await feed_of(stream).follow()
    await subscription.read(0.001)
    stream.append("10-0")
    assert await take(subscription, 1) == ["10-0"]

    await stream.fail_over("1-0", "8-0")
    assert await take(subscription, 1) == [Gap("10-0", "1-0")]
    stream.append("9-0")

    assert await take(subscription, 1) == ["9-0"]
    subscription.close()


async def test_who_asks_for_a_bell_of_an_api_that_ends_is_sent_away_at_once():
    """It came when all others had been told to go: its connection held up the end."""
    feed = feed_of(Stream("1-0"))
    early = await feed.ring()

    feed.close()
    late = await feed.ring()

    assert early.expelled.is_set()
    assert late.expelled.is_set()
    assert await late.read(60.0) == []
