"""Does everything in Redis add up? Looks, and changes nothing."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from flowd.dag.states import NodeState
from flowd.errors import CorruptExecution, StoreError
from flowd.orchestrator.plans import Plans
from flowd.store import Store
from flowd.store.redis_client import MissingGroup
from flowd.store.tasks import Entry

# What is under way while it is looked at is no finding: only what stands this long is.
LOOK_AGAIN_S: Final = 1.0
EXECUTIONS_PER_LOOK: Final = 500
_LIVE: Final = ("RUNNING", "PAUSED")
_IN_STREAM: Final = (NodeState.QUEUED, NodeState.RUNNING)
_NodeKey = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Check:
    """One rule, and what breaks it. `counted` is what was looked at, `known` what it says."""

    rule: str
    counted: int
    violations: tuple[str, ...]


async def examine(store: Store) -> list[Check]:
    """Every rule with what breaks it now and did so a moment ago. Raises StoreUnavailable."""
    first = await _look(store)
    if not any(check.violations for check in first):
        return first
    await asyncio.sleep(LOOK_AGAIN_S)
    before = {check.rule: set(check.violations) for check in first}
    return [
        Check(
            check.rule,
            check.counted,
            tuple(one for one in check.violations if one in before.get(check.rule, ())),
        )
        for check in await _look(store)
    ]


async def _look(store: Store) -> list[Check]:
    entries, garbage = await _entries(store)
    waiting = await store.retries.waiting()
    active = await _active(store)
    statuses = await _statuses(store, sorted(active | {one for one, _ in entries}))
    states, broken = await _node_states(store, sorted(active), statuses)
    return [
        Check("an active execution is RUNNING or PAUSED", len(active), _not_live(active, statuses)),
        Check("what is stored of it can be read", len(active), tuple(broken)),
        Check(
            "a node that is QUEUED or RUNNING has exactly one entry in the stream",
            len(entries),
            tuple(_entry_mismatches(states, Counter(entries), statuses)),
        ),
        Check(
            "a node that is RETRYING has a date",
            len(waiting),
            tuple(_retry_mismatches(states, set(waiting))),
        ),
        Check("every entry can be read", len(entries) + len(garbage), tuple(garbage)),
        await _check_leases(store),
    ]


async def _entries(store: Store) -> tuple[list[_NodeKey], list[str]]:
    entries: list[_NodeKey] = []
    garbage: list[str] = []
    after = ""
    while page := await store.tasks.stream_page(after):
        for entry_id, entry in page:
            if isinstance(entry, Entry):
                entries.append((entry.execution_id, entry.node_id))
            else:
                garbage.append(f"entry {entry_id}: {entry.reason}")
        after = page[-1][0]
    return entries, garbage


async def _active(store: Store) -> set[str]:
    found: set[str] = set()
    cursor = "0"
    while True:
        cursor, some = await store.executions.active_slice(cursor, EXECUTIONS_PER_LOOK)
        found.update(some)
        if cursor == "0":
            return found


async def _statuses(store: Store, execution_ids: Sequence[str]) -> dict[str, str | None]:
    found: dict[str, str | None] = {}
    for at in range(0, len(execution_ids), EXECUTIONS_PER_LOOK):
        some = execution_ids[at : at + EXECUTIONS_PER_LOOK]
        pairs = await store.executions.statuses_and_definitions(some)
        found.update((one, status) for one, (status, _) in zip(some, pairs, strict=True))
    return found


async def _node_states(
    store: Store, active: Sequence[str], statuses: Mapping[str, str | None]
) -> tuple[dict[_NodeKey, str | None], list[str]]:
    """The state of every node of what is active, and what could not be read."""
    plans = Plans(store)
    found: dict[_NodeKey, str | None] = {}
    broken = []
    for execution_id in active:
        if statuses.get(execution_id) not in _LIVE:
            continue
        try:
            plan = await plans.load(execution_id, "")
            states = await store.executions.states_of_nodes({execution_id: list(plan.nodes)})
        except (CorruptExecution, StoreError) as error:
            broken.append(str(error))
            continue
        for node_id, state in states[execution_id].items():
            found[execution_id, node_id] = state
            if state not in set(NodeState):
                broken.append(f"execution {execution_id}: node {node_id} is in state {state!r}")
    return found, broken


def _not_live(active: set[str], statuses: Mapping[str, str | None]) -> tuple[str, ...]:
    return tuple(
        f"execution {one} is active and {statuses.get(one) or 'has no status'}"
        for one in sorted(active)
        if statuses.get(one) not in _LIVE
    )


def _entry_mismatches(
    states: Mapping[_NodeKey, str | None],
    entries: Counter[_NodeKey],
    statuses: Mapping[str, str | None],
) -> list[str]:
    found = [
        f"execution {execution_id}: node {node_id} is {state} and has "
        f"{entries[execution_id, node_id]} entries"
        for (execution_id, node_id), state in states.items()
        if (state in _IN_STREAM) != (entries[execution_id, node_id] == 1)
    ]
    return found + [
        f"an entry of node {node_id} of the unknown execution {execution_id}"
        for execution_id, node_id in entries
        if statuses.get(execution_id) is None
    ]


def _retry_mismatches(states: Mapping[_NodeKey, str | None], waiting: set[_NodeKey]) -> list[str]:
    return [
        f"execution {execution_id}: node {node_id} is RETRYING and waits for nothing"
        for (execution_id, node_id), state in states.items()
        if state == NodeState.RETRYING and (execution_id, node_id) not in waiting
    ]


async def _check_leases(store: Store) -> Check:
    rule = "whoever holds work has a lease"
    try:
        leases = await store.tasks.leases()
    except MissingGroup:
        return Check(rule, 0, ())
    holders = [one for one, beat in leases.items() if beat is None]
    holding = [one for one in holders if await store.tasks.pending_ids(one)]
    return Check(rule, len(leases), tuple(f"{one} holds work without a lease" for one in holding))
