"""What has to hold of schedules: each is looked at in time, and who holds a place has not ended."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Final, NamedTuple

from flowd.store import Store
from flowd.store.schedules import ScheduleRow
from flowd.workflow.states import ExecutionState

# A scheduler looks within seconds, and within a minute where it could not start an execution.
OVERDUE_MS: Final = 120_000
_ENDED: Final = frozenset(one for one in ExecutionState if one.is_terminal)


class ScheduleStanding(NamedTuple):
    """A schedule, and when it is looked at next; None for never. What is_forgotten has times to
    tell its callback of, and nobody does."""

    row: ScheduleRow
    look_ms: int | None
    is_forgotten: bool


async def schedules_of(store: Store) -> list[ScheduleStanding]:
    found: list[ScheduleStanding] = []
    async for rows in store.schedules.pages():
        looks = await store.schedules.looks([row.name for row in rows])
        telling = [row.name for row in rows if row.has_callback]
        forgotten = set(await store.callbacks.forgotten(telling))
        found += [
            ScheduleStanding(row, look_ms, row.name in forgotten)
            for row, look_ms in zip(rows, looks, strict=True)
        ]
    return found


def broken_schedules(
    standings: Sequence[ScheduleStanding], statuses: Mapping[str, str | None]
) -> Iterator[str]:
    for row, look_ms, is_forgotten in standings:
        if is_forgotten:
            yield f"schedule {row.name} has times to tell its callback of, and nobody tells it"
        if row.error:
            yield f"schedule {row.name} cannot start its execution: {row.error}"
        if look_ms is None and (row.next_ms is not None or row.queued_ms is not None):
            yield f"schedule {row.name} is due and no scheduler looks at it"
        elif look_ms is not None and row.now_ms - look_ms > OVERDUE_MS:
            yield f"schedule {row.name} is due and no scheduler has looked at it for minutes"
        elif look_ms is not None and row.next_ms is not None and look_ms > _latest_look(row):
            yield f"schedule {row.name} is looked at long after its time"
        for execution_id in row.holders:
            # Its place is given back when the schedule is due, where nobody did so before.
            if statuses.get(execution_id) in _ENDED:
                yield f"schedule {row.name} counts execution {execution_id}, which has ended"


def _latest_look(row: ScheduleRow) -> int:
    return max(row.next_ms or 0, row.now_ms) + OVERDUE_MS
