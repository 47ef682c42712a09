"""Limits and queues in a soak: who holds a place runs, nobody waits in vain, never were more calls
under way than a limit says, nor more begun than a rate does, and a queue is taken from by those
alone who read it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import inf
from types import MappingProxyType
from typing import Any, Final, NamedTuple

import redis as redis_py

from flowd.store.attempt_records import parse_record
from flowd.store.redis import keys
from flowd.workflow.ids import DEFAULT_QUEUE, split_item
from flowd.workflow.states import ExecutionState, NodeState
from scripts.soaking.ledger import END, START, Note

# By name, the most at once; `lane` has places for each key.
LIMITS: Final = MappingProxyType({"soak": 4, "lane": 2})
# It is changed and lifted all the time.
TIDE: Final = "tide"
TIDES: Final = (1, 2, 4, 8, 0, None)
# A workflow that always runs, of more nodes than its rate lets start at once.
PACED: Final = "paced"
PACE: Final = MappingProxyType({"per_s": 10, "burst": 3})
QUEUES: Final = ("default", "low")
# What further workers of each host read, and nobody else.
GROUPS: Final = MappingProxyType({"big": ("big",)})
# From when a place is given until the call is noted, of a worker that was not frozen meanwhile.
LATE_S: Final = 5.0
_LIVE: Final = ("RUNNING", "PAUSED", "CANCELLING")
_HOLDING: Final = (NodeState.QUEUED, NodeState.RUNNING)


def check_limits(redis: redis_py.Redis, executions: Mapping[str, Any]) -> Iterator[str]:
    """`executions` have `status` and `with_items`, the states of all that runs of them."""
    said = {name: text.split(" ")[:2] for name, text in redis.hgetall(keys.LIMITS).items()}
    dated = set(redis.zrange(keys.LIMITS_DUE, 0, -1))
    for place in redis.zrange(keys.PLACES, 0, -1):
        holders, waiters = (
            redis.zrange(keys.holders(place), 0, -1),
            redis.zrange(keys.waiters(place), 0, -1),
        )
        for member in holders:
            if _state(member, executions) not in _HOLDING:
                yield f"{member}: it holds {place} and does not run"
        for member in waiters:
            if _state(member, executions) != NodeState.WAITING:
                yield f"{member}: it waits for {place} no more"
        most, per_s = said.get(place.partition("/")[0], ("-", "-"))
        if most.isdecimal() and len(holders) > int(most):
            yield f"{place}: {len(holders)} hold a place, and there are {most}"
        is_free = most == "-" or len(holders) < int(most)
        # Who waits for its time has a date.
        if waiters and is_free and (per_s == "-" or place not in dated):
            yield f"{place}: a place is free, and {len(waiters)} wait"
    for execution_id, one in executions.items():
        if one.status not in _LIVE and (kept := redis.hkeys(keys.places(execution_id))):
            yield f"{execution_id}: it is {one.status}, and {kept[0]} holds or awaits a place"


def _state(member: str, executions: Mapping[str, Any]) -> str | None:
    execution_id, _, node_id = member.partition(" ")
    one = executions.get(execution_id)
    state: str | None = one.with_items.get(node_id) if one and one.status in _LIVE else None
    return state


class Change(NamedTuple):
    """Of how many may be at once: it may have been in effect between these times of the ledger."""

    most: float
    since_s: float
    until_s: float


def changes_of(said: Sequence[tuple[float, float, float, bool]]) -> list[Change]:
    """Of what was asked for one after the other: the most, when that was asked and answered, and
    whether an answer was lost: then it may have been done at any time since."""
    ends = [answered_s for _, _, answered_s, _ in said[1:]] + [inf]
    return [
        Change(most, asked_s, inf if is_lost else end_s)
        for (most, asked_s, _, is_lost), end_s in zip(said, ends, strict=True)
    ]


def check_changes(
    executions: Mapping[str, Any],
    ledger: Sequence[Note],
    changes: Sequence[Change],
    frozen: Collection[int] = (),
) -> Iterator[str]:
    """That no call began beside as many as the limit that changes let be; `frozen` are the pids of
    those who may have begun theirs much later than they were let in."""
    running = 0
    for at_s, step, pid in _steps(executions, ledger).get(TIDE, ()):
        running += step
        if step < 0 or pid in frozen:
            continue
        most = [one.most for one in changes if one.since_s <= at_s <= one.until_s + LATE_S]
        if running > max(most, default=inf):
            yield f"{TIDE}: {running} calls at once where {max(most):g} may be"


def check_rates(
    executions: Mapping[str, Any], ledger: Sequence[Note], frozen: Collection[int] = ()
) -> Iterator[str]:
    """That in no time more calls began than the rate lets, whatever became of them."""
    begun = [
        note.at_s
        for note in ledger
        if note.phase == START
        and note.pid not in frozen
        and _limit(executions.get(note.execution_id), note.node_id) == PACED
    ]
    # By how much more than the rate was begun up to each call, and the least of that before.
    least = inf
    for at, at_s in enumerate(begun):
        ahead = at - at_s * PACE["per_s"]
        least = min(least, ahead)
        if (many := ahead - least + 1) > PACE["burst"] + LATE_S * PACE["per_s"]:
            yield f"{PACED}: {many:.0f} calls more than the rate lets begin"
            return


def check_readers(executions: Mapping[str, Any]) -> Iterator[str]:
    """That every node was run by a worker that reads its queue, as far as records say by whom."""
    readers = {queue: group for group, queues in GROUPS.items() for queue in queues}
    for execution in executions.values():
        for node_id, text in execution.attempts.items():
            record = parse_record(text)
            if record is None or record.worker is None:
                continue
            group = record.worker.rsplit("-", 2)[0]
            written = execution.written.get(split_item(node_id)[0], {})
            queue = written.get("queue", DEFAULT_QUEUE)
            if group != readers.get(queue, "worker"):
                yield f"{execution.id} {node_id}: it is of the queue {queue}, and {group} ran it"


def check_calls(
    executions: Mapping[str, Any], ledger: Sequence[Note], limits: Mapping[str, int] = LIMITS
) -> Iterator[str]:
    """That never more calls were under way than a limit says."""
    for place, steps in _steps(executions, ledger).items():
        most = running = 0
        for _, step, _ in steps:
            running += step
            most = max(most, running)
        if most > limits.get(place.partition("/")[0], most):
            yield f"{place}: {most} calls at once"


def _steps(
    executions: Mapping[str, Any], ledger: Sequence[Note]
) -> dict[str, list[tuple[float, int, int]]]:
    """When each call began and ended, and whose it was, by place: those of the newest attempts of
    nodes that nobody cancelled, since a call whose node was taken away may run on."""
    newest: dict[tuple[str, str], int] = {}
    for note in ledger:
        newest[note.node] = max(note.attempt, newest.get(note.node, 0))
    begun: dict[tuple[str, str], float] = {}
    steps: dict[str, list[tuple[float, int, int]]] = defaultdict(list)
    for note in ledger:
        if note.attempt != newest[note.node]:
            continue
        if note.phase == START:
            begun[note.node] = note.at_s
        elif note.phase == END and note.node in begun:
            place = _place(executions.get(note.execution_id), note.node_id)
            if place is not None:
                began_s = begun.pop(note.node)
                steps[place] += [(began_s, 1, note.pid), (note.at_s, -1, note.pid)]
    return {place: sorted(each) for place, each in steps.items()}


def _place(execution: Any, node_id: str) -> str | None:
    """None for a node without a limit, and of an execution that did not end by itself."""
    if execution is None or execution.status not in (
        ExecutionState.COMPLETED,
        ExecutionState.FAILED,
    ):
        return None
    return _limit(execution, node_id)


def _limit(execution: Any, node_id: str) -> str | None:
    if execution is None:
        return None
    limit = execution.written.get(split_item(node_id)[0], {}).get("limit")
    if not isinstance(limit, dict):
        return limit
    return f"{limit['name']}/{execution.definition['input']['lane']}"


def paced() -> dict[str, Any]:
    """Of a rate, half of it for other workers."""
    nodes = [
        {"id": f"P{at}", "handler": "ledger_quick", "dependencies": [], "limit": PACED}
        | ({"queue": "big"} if at % 2 else {})
        for at in range(20)
    ]
    return {"name": PACED, "dag": {"nodes": nodes}}


def held_back(nodes: Collection[dict[str, Any]], chance: Any) -> None:
    """Some of these nodes take places, and some are in another queue."""
    for node in nodes:
        limit = chance.choice((None, "soak", TIDE, {"name": "lane", "key": "{{ input.lane }}"}))
        if limit is not None:
            node["limit"] = limit
        queue = chance.choices((None, QUEUES[1], "big"), (6, 3, 1))[0]
        if queue is not None:
            node["queue"] = queue
