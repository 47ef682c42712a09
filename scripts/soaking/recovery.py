"""How long a node was without a worker after its worker was lost, by the ledger.

And how long nothing at all began once Redis was back.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from scripts.soaking.faults import Fault
from scripts.soaking.ledger import START, Note

MEASURED = ("kill_worker", "kill_supervisor", "kill_host", "freeze_worker", "freeze_host")
OF_REDIS = ("kill_redis", "freeze_redis", "pause_clients", "fill_redis")
# A kill is alone when no other fault lasts into it or begins before all has started again.
_BEFORE_S = 2.0


class Recovery(NamedTuple):
    """One node that was started again: `seconds` after the fault, which was `is_alone` or not."""

    kind: str
    seconds: float
    is_alone: bool


def recoveries(faults: Sequence[Fault], ledger: Sequence[Note]) -> list[Recovery]:
    """Nodes that did not start again are not among them: theirs were ended by somebody."""
    starts_of_pid: defaultdict[int, list[Note]] = defaultdict(list)
    starts_of_node: defaultdict[tuple[str, str], list[Note]] = defaultdict(list)
    ends: dict[tuple[str, str, int], float] = {}
    for note in ledger:
        if note.phase == START:
            starts_of_pid[note.pid].append(note)
            starts_of_node[note.node].append(note)
        else:
            ends.setdefault((*note.node, note.attempt), note.at_s)
    found = []
    for fault in faults:
        if fault.kind in MEASURED:
            for pid in fault.pids:
                for start in starts_of_pid[pid]:
                    again = _next_start(starts_of_node[start.node], start)
                    if again and _was_lost(start, again, ends, fault.began_at):
                        found.append(_recovery(fault, again, faults))
    return found


def _next_start(starts: Sequence[Note], lost: Note) -> Note | None:
    at = bisect_left(starts, lost.at_s, key=lambda note: note.at_s) + 1
    return next((one for one in starts[at:] if one.attempt > lost.attempt), None)


def _was_lost(
    start: Note, again: Note, ends: Mapping[tuple[str, str, int], float], fault_at_s: float
) -> bool:
    """Whether it ran at the fault, and had not ended when it began anew: who thaws ends late."""
    ended_at_s = ends.get((*start.node, start.attempt))
    is_running = start.at_s < fault_at_s < again.at_s
    return is_running and (ended_at_s is None or ended_at_s > again.at_s)


def silences(faults: Sequence[Fault], ledger: Sequence[Note]) -> list[tuple[str, float]]:
    """After each fault of Redis, seconds from its end until the next node began anywhere."""
    starts = sorted(note.at_s for note in ledger if note.phase == START)
    found = []
    for fault in faults:
        if fault.kind in OF_REDIS and fault.ended_at is not None:
            at = bisect_right(starts, fault.ended_at)
            if at < len(starts):
                found.append((fault.kind, starts[at] - fault.ended_at))
    return found


def _recovery(fault: Fault, again: Note, faults: Sequence[Fault]) -> Recovery:
    others = (
        one
        for one in faults
        if one is not fault
        and one.began_at < again.at_s
        and (one.ended_at or again.at_s) > fault.began_at - _BEFORE_S
    )
    return Recovery(fault.kind, again.at_s - fault.began_at, next(others, None) is None)
