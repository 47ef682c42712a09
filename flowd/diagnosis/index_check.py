"""Whether the lists of executions by state and by name hold those they should, and no others."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from flowd.diagnosis.label_check import Labels
from flowd.diagnosis.log_check import LogsView
from flowd.store import Store
from flowd.store.indexes import LISTED_STATES
from flowd.store.inspection import Inspection


@dataclass(slots=True)
class Lists:
    """`by_status` has the executions listed under a state, `by_name` those under a name; `names`
    what each that exists is called. Until they are `complete` an older version's are missing."""

    by_status: dict[str, set[str]] = field(default_factory=dict)
    by_name: set[tuple[str, str]] = field(default_factory=set)
    names: dict[str, str] = field(default_factory=dict)
    are_complete: bool = False
    labels: Labels = field(default_factory=Labels)
    logs: LogsView = field(default_factory=LogsView)

    async def read(self, store: Store) -> None:
        indexes = store.executions.indexes
        self.are_complete = await indexes.are_complete()
        for state in LISTED_STATES:
            self.by_status[state] = {one async for one in indexes.listed(state)}
        self.by_name = {one async for one in indexes.named()}

    async def read_given(self, inspection: Inspection, execution_ids: Sequence[str]) -> None:
        """What these executions say of their labels and their logs."""
        await self.labels.read_given(inspection, execution_ids)
        await self.logs.read(inspection, execution_ids)

    async def read_names(self, store: Store, execution_ids: Sequence[str]) -> None:
        names = await store.health.attention.raw_names(execution_ids)
        self.names.update((one, name) for one, name in names.items() if name is not None)


def list_mismatches(lists: Lists, statuses: Mapping[str, str | None]) -> Iterator[str]:
    """Whoever is in a wrong list, and, where the lists are complete, who is in none."""
    for state, listed in lists.by_status.items():
        for execution_id in sorted(listed):
            status = statuses.get(execution_id)
            if status != state:
                said = f"is {status}" if status else "has no status"
                yield f"execution {execution_id} is listed as {state} and {said}"
    for name, execution_id in sorted(lists.by_name):
        if statuses.get(execution_id) is None or lists.names.get(execution_id) != name:
            yield f"execution {execution_id} is listed under the name {name!r} without it"
    if not lists.are_complete:
        return
    for execution_id, status in statuses.items():
        if status in lists.by_status and execution_id not in lists.by_status[status]:
            yield f"execution {execution_id} is {status} and not listed so"
        called = lists.names.get(execution_id)
        is_called = status is not None and called is not None
        if is_called and (called, execution_id) not in lists.by_name:
            yield f"execution {execution_id} is called {called!r} and not listed so"
