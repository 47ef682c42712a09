"""How long a node was without a worker after its worker was killed, by the ledger."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import NamedTuple

from scripts.soaking.faults import Fault
from scripts.soaking.ledger import START, Note

MEASURED = ("kill_worker", "kill_supervisor", "kill_host")
# A kill is alone when no other fault lasts into it or begins before all has started again.
_BEFORE_S = 2.0


class Recovery(NamedTuple):
    """One node that was started again: `seconds` after the kill, which was `is_alone` or not."""

    kind: str
    seconds: float
    is_alone: bool


def recoveries(faults: Sequence[Fault], ledger: Sequence[Note]) -> list[Recovery]:
    """Nodes that did not start again are not among them: theirs were ended by somebody."""
    by_pid: defaultdict[int, list[Note]] = defaultdict(list)
    by_node: defaultdict[tuple[str, str], list[Note]] = defaultdict(list)
    for note in ledger:
        by_pid[note.pid].append(note)
        if note.phase == START:
            by_node[note.node].append(note)
    found = []
    for fault in faults:
        if fault.kind in MEASURED:
            for pid in fault.pids:
                for lost in _running(by_pid[pid], fault.began_at):
                    again = _next_start(by_node[lost.node], lost)
                    if again is not None:
                        found.append(_recovery(fault, again, faults))
    return found


def _running(notes: Iterable[Note], at_s: float) -> list[Note]:
    """Starts of one process that had not ended when it was killed."""
    running: dict[tuple[str, str], Note] = {}
    for note in notes:
        # What it managed to say while the signal was on its way counts as well.
        if note.phase == START and note.at_s < at_s:
            running[note.node] = note
        else:
            running.pop(note.node, None)
    return list(running.values())


def _next_start(starts: Sequence[Note], lost: Note) -> Note | None:
    at = bisect_left(starts, lost.at_s, key=lambda note: note.at_s) + 1
    return next((one for one in starts[at:] if one.attempt > lost.attempt), None)


def _recovery(fault: Fault, again: Note, faults: Sequence[Fault]) -> Recovery:
    others = (
        one
        for one in faults
        if one is not fault
        and one.began_at < again.at_s
        and (one.ended_at or again.at_s) > fault.began_at - _BEFORE_S
    )
    return Recovery(fault.kind, again.at_s - fault.began_at, next(others, None) is None)
