"""What one worker process counts of the nodes it ends, and how the counts reach the store.

The fields of the shared hash have the handler last, because its name may hold anything:
`ended <state> <handler>`, `waited <bucket> <handler>`, `waited_ms <handler>`, and so for `ran`;
`cache hit <handler>` and `cache miss <handler>`.
Bucket n holds what took at most 2^n ms; the last holds the rest.
"""

from __future__ import annotations

from typing import Final

from flowd.errors import StoreError, StoreFull
from flowd.store.attempt_records import waited_and_ran_ms
from flowd.store.metrics import BUCKETS, Metrics
from flowd.workflow.states import NodeState

_LAST: Final = BUCKETS - 1


class _Row:
    __slots__ = ("count", "ran", "ran_ms", "waited", "waited_ms")

    def __init__(self) -> None:
        self.count = 0
        self.waited_ms = 0
        self.ran_ms = 0
        self.waited = [0] * BUCKETS
        self.ran = [0] * BUCKETS


class Tally:
    """`note` or `note_record` at the end of each attempt, `flush` every few seconds."""

    def __init__(self) -> None:
        self._rows: dict[tuple[str, str], _Row] = {}
        self._unsent: dict[str, int] = {}

    def note(self, handler: str, state: str, waited_ms: int, ran_ms: int) -> None:
        """An attempt ended: how long it waited in the stream, and how long its handler ran."""
        row = self._rows.get((handler, state))
        if row is None:
            row = self._rows[handler, state] = _Row()
        row.count += 1
        row.waited_ms += waited_ms
        row.ran_ms += ran_ms
        bucket = (waited_ms - 1).bit_length() if waited_ms > 0 else 0
        row.waited[bucket if bucket < _LAST else _LAST] += 1
        bucket = (ran_ms - 1).bit_length() if ran_ms > 0 else 0
        row.ran[bucket if bucket < _LAST else _LAST] += 1

    def note_record(self, handler: str, state: str, record: str) -> None:
        """As `note`, from the attempt record of what ended."""
        self.note(handler, state, *waited_and_ran_ms(record))

    def note_miss(self, handler: str) -> None:
        """Nothing was kept that could have stood for a call that completed."""
        self._add(f"cache miss {handler}", 1)

    def note_hit(self, handler: str) -> None:
        """A node completed by an output that was kept; its handler did not run."""
        self._add(f"cache hit {handler}", 1)
        self._add(f"ended {NodeState.COMPLETED} {handler}", 1)

    async def flush(self, metrics: Metrics) -> bool:
        """Add to the shared counts; False when Redis is at its memory limit.

        What Redis does not take now goes with the next flush. Where only the reply was lost it is
        counted twice: a measurement bears that, work does not.
        """
        self._collect()
        sent, self._unsent = self._unsent, {}
        try:
            await metrics.add(sent)
        except BaseException as error:
            for field, by in sent.items():
                self._unsent[field] = self._unsent.get(field, 0) + by
            if not isinstance(error, StoreError):
                raise
            return not isinstance(error, StoreFull)
        return True

    def _collect(self) -> None:
        rows, self._rows = self._rows, {}
        for (handler, state), row in rows.items():
            self._add(f"ended {state} {handler}", row.count)
            self._add(f"waited_ms {handler}", row.waited_ms)
            self._add(f"ran_ms {handler}", row.ran_ms)
            for bucket in range(BUCKETS):
                self._add(f"waited {bucket} {handler}", row.waited[bucket])
                self._add(f"ran {bucket} {handler}", row.ran[bucket])

    def _add(self, field: str, by: int) -> None:
        if by:
            self._unsent[field] = self._unsent.get(field, 0) + by
