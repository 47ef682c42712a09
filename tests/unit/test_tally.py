"""A tally costs next to nothing, and its buckets are those of the documentation."""

from __future__ import annotations

import asyncio
import contextlib
from types import SimpleNamespace

import pytest

from flowd.errors import StoreFull, StoreUnavailable
from flowd.store.metrics import BUCKETS
from flowd.workers.tally import Tally


class Sink:
    def __init__(self):
        self.counts = {}
        self.error = None

    async def add(self, increments):
        if self.error is not None:
            raise self.error
        self.counts.update(increments)


@pytest.mark.parametrize(
    ("ms", "bucket"),
    [(-5, 0), (0, 0), (1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (1024, 10), (1025, 11),
     (2**20, 20), (2**20 + 1, 21), (2**40, 21)],
)  # fmt: skip
async def test_a_bucket_holds_what_took_at_most_a_power_of_two(ms, bucket):
    tally, sink = Tally(), Sink()
    tally.note("noop", "COMPLETED", ms, ms)
    await tally.flush(sink)
    assert sink.counts[f"waited {bucket} noop"] == sink.counts[f"ran {bucket} noop"] == 1
    assert bucket < BUCKETS


async def test_an_attempt_record_is_counted_as_its_numbers():
    tally, sink = Tally(), Sink()
    tally.note_record("noop", "RETRYING", "3 1764000000000 5 9 worker of mine")
    await tally.flush(sink)
    assert sink.counts == {
        "ended RETRYING noop": 1,
        "waited_ms noop": 5,
        "ran_ms noop": 9,
        "waited 3 noop": 1,
        "ran 4 noop": 1,
    }


async def test_nothing_counted_is_nothing_sent():
    sink = Sink()
    await Tally().flush(sink)
    assert sink.counts == {}


@pytest.mark.parametrize(
    "error", [StoreUnavailable("away"), StoreFull("full"), asyncio.CancelledError()]
)
async def test_what_redis_does_not_take_is_kept_for_the_next_time(error):
    tally, sink = Tally(), Sink()
    for error_now in (error, error, None):
        sink.error = error_now
        tally.note("noop", "COMPLETED", 3, 3)
        with contextlib.suppress(asyncio.CancelledError):
            assert await tally.flush(sink) is not isinstance(error_now, StoreFull)
    assert sink.counts["ended COMPLETED noop"] == 3
    assert sink.counts["waited_ms noop"] == 9


async def test_what_is_counted_while_redis_refuses_is_added_to_what_it_refused():
    tally, sink = Tally(), Sink()
    tally.note_miss("llm")
    tally.note_hit("llm")

    async def refuse(_increments):
        tally.note_miss("llm")
        tally.note_hit("llm")
        raise StoreUnavailable("away")

    assert await tally.flush(SimpleNamespace(add=refuse))
    await tally.flush(sink)

    assert sink.counts == {"cache miss llm": 2, "cache hit llm": 2, "ended COMPLETED llm": 2}
