"""What a subscription hears of when another Redis goes on with events of its own."""

from __future__ import annotations

import asyncio
from typing import Any

from flowd.api import event_feed
from flowd.api.event_feed import EventFeed, Gap, Subscription
from flowd.errors import StoreUnavailable
from flowd.store.events import BEGINNING, Entry, Page, Position, StoredEvent, behind

PAGE = 2


class Stream:
    """Stands for `Events` and for its tail; `told` ends the wait of the tail, and `waits` says that
    it has begun one."""

    def __init__(self, *entry_ids: str) -> None:
        self.failovers = self.tails = self.reads = 0
        self.may_answer = asyncio.Event()
        self.may_answer.set()
        self.errors: list[Exception] = []
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
        self.tails += 1
        return self

    async def next(self, after: Position) -> list[Entry]:
        self.waits.set()
        await self.told.wait()
        if self.errors:
            raise self.errors.pop()
        self.told.clear()
        return [one for one in self.entries if behind(one[0]) > after]

    async def newest(self) -> Position:
        await self.may_answer.wait()
        return behind(self.entries[-1][0]) if self.entries else BEGINNING

    async def read(self, after: Position, count_max: int = PAGE) -> Page:
        self.reads += 1
        assert self.reads < 100, "the same page again and again"
        found = [one for one in self.entries if behind(one[0]) > after][:count_max]
        oldest_id = self.entries[0][0] if self.entries else None
        return Page(found, len(found) < count_max, oldest_id)

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


async def test_a_second_outage_is_said_and_waited_for_as_the_first_was(lines, monkeypatch):
    monkeypatch.setattr(event_feed, "PAUSE_S", 0.001)
    stream = Stream("1-0")
    feed = feed_of(stream)
    subscription = await feed.follow()
    for count in (1, 2):
        stream.errors = [StoreUnavailable("nobody is there")] * 3
        stream.append(f"{count}-1")
        assert await take(subscription, 1) == [f"{count}-1"]
        assert len(lines.of("redis.lost")) == len(lines.of("redis.reconnected")) == count
        stream.append(f"{count}-2")
        assert await take(subscription, 1) == [f"{count}-2"]
    assert len(lines) == 4

    subscription.close()
    assert (feed._live, feed._subscriptions, feed._tail) == ({}, set(), None)


async def test_those_who_come_together_have_one_reader_and_who_comes_when_it_ends_another():
    stream = Stream("1-0")
    feed = feed_of(stream)
    stream.may_answer.clear()
    following = [asyncio.create_task(feed.follow()) for _ in range(2)]
    await asyncio.sleep(0)
    stream.may_answer.set()
    first, second = await asyncio.gather(*following)
    await asyncio.wait_for(stream.waits.wait(), 10)
    assert stream.tails == 1

    # While this one asks for the newest id the last of the others leave.
    stream.may_answer.clear()
    resuming = asyncio.create_task(feed.resume(behind("9-0")))
    await asyncio.sleep(0)
    first.close()
    second.close()
    stream.may_answer.set()
    subscription = await resuming
    gap, *past = await take(subscription, 2)
    assert (isinstance(gap, Gap), past) == (True, ["1-0"])
    assert await subscription.read(0.01) == []

    stream.append("2-0")
    assert await take(subscription, 1) == ["2-0"]
    subscription.close()


async def test_who_comes_to_an_api_that_ends_is_sent_away_at_once():
    feed = feed_of(Stream("1-0"))
    feed.close()
    subscription = await feed.follow()
    assert subscription.expelled.is_set()
    subscription.close()


async def test_a_reader_that_ends_by_a_defect_sends_away_who_waits_for_it():
    stream = Stream("1-0")
    feed = feed_of(stream)
    subscription = await feed.follow()
    tail = feed._tail
    stream.errors = [RuntimeError("a defect")]
    stream.told.set()

    await asyncio.wait_for(subscription.expelled.wait(), 10)

    assert feed._tail is None
    assert isinstance(tail.exception(), RuntimeError)


async def test_one_failover_is_one_gap_however_much_comes_behind_it():
    stream = Stream("1-0")
    feed = feed_of(stream)
    subscription = await feed.follow()
    assert await subscription.read(0.01) == []
    await stream.fail_over("1-0")
    for entry_id in ("2-0", "3-0"):
        stream.append(entry_id)
        await asyncio.wait_for(stream.waits.wait(), 10)
    found = await take(subscription, 3)
    assert [isinstance(one, Gap) for one in found] == [True, False, False]
    subscription.close()


async def test_who_does_not_read_what_comes_is_sent_away_with_nothing(monkeypatch):
    """Part of it would be taken for all."""
    monkeypatch.setattr(event_feed, "WAITING_MAX", 2)
    stream = Stream("1-0")
    subscription = await feed_of(stream).follow()
    assert await subscription.read(0.01) == []

    for number in range(2, 5):
        stream.entries.append(entry(f"{number}-0"))
    stream.told.set()
    await asyncio.wait_for(subscription.expelled.wait(), 10)

    assert await subscription.read(0.01) == []
    subscription.close()


async def test_who_asks_for_the_past_of_one_that_has_none_is_live_after_one_page():
    stream = Stream("1-0", "2-0")
    feed = feed_of(stream)
    subscription = await feed.resume(behind("1-0"), "another")
    assert await subscription.read(0.01) == []
    assert (subscription._is_live, stream.reads) == (True, 1)
    subscription.close()


async def test_who_asks_for_a_past_that_is_kept_no_more_is_live_after_one_page():
    stream = Stream("1-0", "2-0")
    feed = feed_of(stream)
    subscription = await feed.resume(behind("1-0"))
    stream.entries.clear()
    while not subscription._is_live:
        await subscription.read(0.01)
    assert stream.reads == 1
    subscription.close()
