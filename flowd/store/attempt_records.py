"""What is kept of a node's newest attempt: `attempt queued_ms waited_ms ran_ms consumer`.

Written and read here alone; `-` is what is not known, and a
`ran_ms` of `cached` of an attempt that took an output that was kept, and called no handler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from flowd.store.entries import Entry
from flowd.store.redis.text import readable

CACHED: Final = "cached"


@dataclass(frozen=True, slots=True)
class AttemptRecord:
    """None for what is not known yet, or was lost with its worker."""

    attempt: int | None
    queued_ms: int | None
    waited_ms: int | None
    ran_ms: int | None
    worker: str | None
    is_cached: bool = False

    @property
    def started_ms(self) -> int | None:
        if self.queued_ms is None or self.waited_ms is None:
            return None
        return self.queued_ms + self.waited_ms

    @property
    def finished_ms(self) -> int | None:
        if self.started_ms is None or self.ran_ms is None:
            return None
        return self.started_ms + self.ran_ms


NO_RECORD = AttemptRecord(None, None, None, None, None)


def attempt_record(entry: Entry, consumer: str, started_ms: int, finished_ms: int | None) -> str:
    """Of an attempt that has started.

    Under 65 bytes for usual names: Redis keeps a small hash of short values in half the space.
    """
    queued_ms = entry.queued_ms
    waited_ms = max(0, started_ms - queued_ms)
    ran_ms = "-" if finished_ms is None else finished_ms - started_ms
    return f"{entry.attempt} {queued_ms} {waited_ms} {ran_ms} {consumer}"


def cached_record(entry: Entry, consumer: str, started_ms: int) -> str:
    """Of an attempt that took an output that was kept."""
    waited_ms = max(0, started_ms - entry.queued_ms)
    return f"{entry.attempt} {entry.queued_ms} {waited_ms} {CACHED} {consumer}"


def lost_record(entry: Entry, consumer: str) -> str:
    """Of an attempt that has no times: its worker took them along, or it never began."""
    return f"{entry.attempt} {entry.queued_ms} - - {consumer}"


def waited_and_ran_ms(record: str) -> tuple[int, int]:
    """Of an attempt that its worker saw to the end."""
    _, _, waited_ms, ran_ms, _ = record.split(" ", 4)
    return int(waited_ms), 0 if ran_ms == CACHED else int(ran_ms)


def parse_record(text: str | None) -> AttemptRecord | None:
    """None when there is none, or what stands there is no record."""
    if not text:
        return None
    attempt, *times = text.split(" ", 4)
    if not attempt.isdecimal() or len(times) != 4:
        return None
    queued_ms, waited_ms, ran_ms = (_number(one) for one in times[:3])
    worker = None if times[3] == "-" else readable(times[3])
    if times[2] == CACHED:
        return AttemptRecord(_number(attempt), queued_ms, waited_ms, 0, worker, is_cached=True)
    return AttemptRecord(_number(attempt), queued_ms, waited_ms, ran_ms, worker)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) <= 16 else None
