"""Who holds a place of a limit, and whether limits are what they say."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from flowd.store import Store
from flowd.store.limits import Limit, Turn
from flowd.store.nodes import NodeRow
from flowd.workflow.limiting import SLOT, split_place
from flowd.workflow.states import NodeState

HOLDERS_NAMED_MAX = 3
_RUNS = (NodeState.QUEUED, NodeState.RUNNING)


class PlaceStanding(NamedTuple):
    """A place of a limit, who of its holders are the oldest, how many there are, and how many wait
    in front of whoever asks."""

    place: str
    limit: Limit | None
    holders: Sequence[Turn]
    holding: int
    ahead: int


class HeldPlace(NamedTuple):
    """All who hold a place of a limit, and wait for it."""

    limit: Limit | None
    holders: Sequence[Turn]
    waiters: Sequence[Turn]


async def places_waited_for(
    store: Store, execution_id: str, rows: Sequence[NodeRow]
) -> dict[str, PlaceStanding]:
    """By node, for those that wait for a place."""
    found = {}
    for row in rows:
        if row.wait is not None and row.wait.waker == SLOT:
            place = row.wait.text
            (size,) = await store.tasks.limits.sizes([place])
            found[row.node_id] = PlaceStanding(
                place,
                await store.tasks.limits.find(split_place(place)[0]),
                await store.tasks.limits.holders(place, HOLDERS_NAMED_MAX),
                size.holders,
                await store.tasks.limits.ahead(place, execution_id, row.node_id) or 0,
            )
    return found


def describe_place(standing: PlaceStanding) -> str:
    """`; 3 of 3 hold one: 5f… call, …; 2 wait before it`"""
    limit, text = standing.limit, ""
    if limit is not None and limit.max == 0:
        text = f"; it lets nothing run (max 0): PUT /limits/{limit.name} with another max"
    elif limit is not None and limit.max is not None:
        text = f"; {standing.holding:,} of {limit.max:,} hold one"
        named = ", ".join(f"{one.node_id} of {one.execution_id}" for one in standing.holders)
        text += f": {named}" if named else ""
        text += ", …" if standing.holding > len(standing.holders) else ""
    if limit is not None and limit.per_s is not None:
        text += f"; {limit.per_s:g} start a second"
    return text + (f"; {standing.ahead:,} wait before it" if standing.ahead else "")


async def held_places(store: Store) -> dict[str, HeldPlace]:
    """By place, all that are held or waited for."""
    limits = {one.name: one for one in await store.tasks.limits.all()}
    found = {}
    async for page in store.tasks.limits.pages():
        for one in page:
            holders, waiters = await store.tasks.limits.members(one.place)
            found[one.place] = HeldPlace(limits.get(split_place(one.place)[0]), holders, waiters)
    return found


def broken_limits(
    places: Mapping[str, HeldPlace], states: Mapping[tuple[str, str], str | None]
) -> Iterator[str]:
    """`states` are those of the nodes of executions that run; who is none of them does not."""
    for place, held in places.items():
        for one in held.holders:
            if states.get((one.execution_id, one.node_id)) not in _RUNS:
                yield f"node {one.node_id} of {one.execution_id} holds {place} and does not run"
        for one in held.waiters:
            if states.get((one.execution_id, one.node_id)) != NodeState.WAITING:
                yield f"node {one.node_id} of {one.execution_id} waits for {place} no more"
        limit = held.limit
        is_rated = limit is not None and limit.per_s is not None
        is_full = limit is not None and limit.max is not None and len(held.holders) >= limit.max
        if held.waiters and not is_full and not is_rated:
            yield f"{place} has a free place, and {len(held.waiters)} wait for it"
