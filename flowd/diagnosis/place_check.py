"""What has to hold of places: who holds one runs, and nobody waits for one that is free."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Final

from flowd.diagnosis.limit_check import HeldPlace, broken_limits, held_places
from flowd.store import Store
from flowd.store.places import Asked
from flowd.workflow.states import CANCELLING, ExecutionState

_LIVE: Final = frozenset({ExecutionState.RUNNING, ExecutionState.PAUSED, CANCELLING})


@dataclass(slots=True)
class PlacesView:
    """Members are the digest of a key and an execution; `asked` is what those that ask for a place,
    or hold one, say of it; `limits` are the places of nodes."""

    holders: Sequence[tuple[str, str]] = ()
    waiters: Sequence[tuple[str, str]] = ()
    asked: dict[str, Asked] = field(default_factory=dict)
    limits: Mapping[str, HeldPlace] = field(default_factory=dict)

    @property
    def named(self) -> set[str]:
        return {one for _, one in (*self.holders, *self.waiters)}


async def look_at_places(store: Store) -> PlacesView:
    return PlacesView(
        await store.lifecycle.places.all_holders(),
        await store.lifecycle.places.all_waiters(),
        limits=await held_places(store),
    )


def broken_places(
    view: PlacesView,
    statuses: Mapping[str, str | None],
    node_states: Mapping[tuple[str, str], str | None],
) -> Iterator[str]:
    yield from broken_limits(view.limits, node_states)
    counts: dict[str, list[str]] = defaultdict(list)
    for digest, execution_id in view.holders:
        counts[digest].append(execution_id)
        if statuses.get(execution_id) not in _LIVE:
            yield f"execution {execution_id} holds a place, and does not run"
    for digest, execution_ids in counts.items():
        most = max((view.asked[one].max for one in execution_ids if one in view.asked), default=0)
        if most and len(execution_ids) > most:
            yield f"of the key {digest} {len(execution_ids)} executions run; at most {most} may"
    for digest, members in groupby(view.waiters, key=lambda member: member[0]):
        first = next(members)[1]
        asked = view.asked.get(first)
        if statuses.get(first) == ExecutionState.PENDING and asked is not None:
            free = asked.max - len(counts[digest])
            if free > 0:
                yield f"execution {first} waits for a place, and {free} of {asked.max} are free"
    waiting, holding = set(view.waiters), set(view.holders)
    for execution_id, asked in view.asked.items():
        status, member = statuses.get(execution_id), (asked.digest, execution_id)
        if status in _LIVE and member not in holding:
            yield f"execution {execution_id} is {status} and holds no place of its key"
        elif status == ExecutionState.PENDING and asked.waits and member not in waiting:
            yield f"execution {execution_id} waits for a place, and is not among those that do"
    for _, execution_id in view.waiters:
        status = statuses.get(execution_id)
        if status != ExecutionState.PENDING:
            yield f"execution {execution_id} waits for a place and is {status}"
