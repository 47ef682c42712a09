"""How an attempt ends: what a worker may say of a node it holds, and the script that commits it.

An ending is one class here, one Lua file and one test. Those that advance dependents travel in
batches, a call for each kind; waits travel in batches too, and the others have a call each.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import groupby
from typing import Any, Final, NamedTuple, cast

import orjson

from flowd.store.dependents import DEPENDENTS_PER_CALL_MAX, advance_arguments
from flowd.store.entries import Entry
from flowd.store.executions import now_ms
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import Argument
from flowd.store.redis.scripts import Script
from flowd.workflow.caching import Keep
from flowd.workflow.children import CHILD
from flowd.workflow.graph import PlannedNode

# One call commits no more nodes than this, and none further once it has so many arguments or bytes:
# each dependent is one or two, and 5,000 hold the server for some 15 ms.
COMMIT_MAX: Final = 256
ARGUMENTS_MAX: Final = 4_000
WAITS_MAX: Final = 64
BYTES_MAX: Final = 16 * 1024 * 1024
EVENT_ERROR_CHARS_MAX: Final = 300


class Completion(NamedTuple):
    """A node that ended well: its output as JSON, the plan that says what it opens, and what equal
    calls of it have in common, where they are made once.
    """

    entry: Entry
    node: PlannedNode
    record: str
    output: bytes
    keep: Keep | None = None


class Skip(NamedTuple):
    """A node that does not run, and why, as text in UTF-8."""

    entry: Entry
    node: PlannedNode
    record: str
    reason: bytes


class AllowedFailure(NamedTuple):
    """A node that failed and may: its dependents take its output, the error, as that of a completed
    one. `report` and `dead_letter` as of a Failure.
    """

    entry: Entry
    node: PlannedNode
    record: str
    output: bytes
    report: bytes = b""
    dead_letter: str = ""


class Failure(NamedTuple):
    """A node that failed: its output (the error), and that of the nodes that now cannot run.

    Those are `downstream`, each with the dependents that look at how it ended; `looks` are the
    node's own. With a reason in `dead_letter` it also goes to the dead letters, for a person to
    look at. `report` (JSON, or empty) is kept beside the error: a traceback, or what a program
    wrote.
    """

    entry: Entry
    record: str
    output: bytes
    downstream_output: bytes
    downstream: tuple[str, ...]
    dead_letter: str = ""
    report: bytes = b""
    looks: str = ""


class RetryLater(NamedTuple):
    """A node whose attempt failed and that gets another one, after a pause."""

    entry: Entry
    record: str
    pause_ms: int
    failures: int
    error: str
    report: bytes = b""


class Wait(NamedTuple):
    """A node that waits for something outside of any worker: its wait of this number, from 1.

    `waker` is a `date`, due in so many ms, a `moment`, due at this Unix time in ms, or the kind of
    what will be decided; of that `due_ms` is how many ms it waits at most. `text` is for whoever
    looks.
    """

    entry: Entry
    record: str
    waker: str
    number: int
    due_ms: int | None = None
    text: str = ""


class ItemCompletion(Completion):
    """An item of a map that ended well."""


class ItemFailure(AllowedFailure):
    """An item of a map that failed; the node it belongs to says how many of them may."""


class ItemPause(Wait):
    """An item of a map that is called again later; its place goes to another one meanwhile."""


class ItemRetry(RetryLater):
    """An item of a map that gets another attempt; its place goes to another one meanwhile."""


Advance = Completion | Skip | AllowedFailure
Single = Failure | RetryLater | Wait
Ending = Advance | Single

# What the scripts say of a node that has ended, all but the first with its execution.
ENDED: Final = ("completed", "finished", "failed", "cancelled")
# And of an ending that was committed at all; any other word is an oddity.
COMMITTED: Final = frozenset((*ENDED, "retrying", "waiting", "woken"))

_ADVANCED_BY: Final[Mapping[type[Advance], Callable[[], Script]]] = {
    Skip: lambda: scripts.SKIP_NODES,
    AllowedFailure: lambda: scripts.ALLOW_FAILURES,
    ItemFailure: lambda: scripts.FAIL_ITEMS,
    ItemCompletion: lambda: scripts.COMPLETE_ITEMS,
    Completion: lambda: scripts.COMPLETE_NODES,
}
_KIND_ORDER: Final = {kind: place for place, kind in enumerate(_ADVANCED_BY)}


def _kind_and_queue(ending: Advance) -> tuple[int, str]:
    return _KIND_ORDER[type(ending)], ending.entry.queue


class ScriptCall(NamedTuple):
    script: Script
    names: tuple[str, ...]
    arguments: Sequence[Argument]


class Commits:
    """The calls that commit endings, for one stream and its group. Who reads one queue has entries
    of no other."""

    def __init__(self, stream: str, group: str, *, has_one_queue: bool = False) -> None:
        self._group = group
        # What says which endings may share a call.
        self._run_of: Callable[[Advance], Any] = type if has_one_queue else _kind_and_queue
        self._keys = (stream, keys.ACTIVE, keys.CONTINUATIONS, keys.DEAD_LETTERS)

    def sort(self, endings: list[Advance]) -> None:
        """Put next to each other what may share a call; those with much to say come last."""
        if len(set(map(self._run_of, endings))) > 1:
            endings.sort(key=_kind_and_queue)

    def advance_calls(self, endings: Sequence[Advance]) -> list[ScriptCall]:
        """Calls for the first of these, as many as one transaction bears: one for each run of
        endings of a kind and a queue, see `sort`.
        """
        calls: list[ScriptCall] = []
        size = arguments = 0
        for _, run in groupby(endings[:COMMIT_MAX], self._run_of):
            names: list[Argument] = []
            said: list[Argument] = []
            for ending in run:
                entry, node, record, text = ending[:4]
                names.append(entry.name)
                said += (entry.execution_id, entry.node_id, entry.plan_digest, record, text)
                if isinstance(ending, AllowedFailure):
                    said += _allowed_arguments(ending)
                else:
                    said += advance_arguments(node)
                size += len(text)
                if size > BYTES_MAX or arguments + len(said) > ARGUMENTS_MAX:
                    break
            touched = self._keys if isinstance(ending, AllowedFailure) else self._keys[:3]
            whole = [self._group, now_ms(), len(names), *names, *said]
            calls.append(ScriptCall(_ADVANCED_BY[type(ending)](), touched, whole))
            arguments += len(said)
            if size > BYTES_MAX or arguments > ARGUMENTS_MAX:
                break
        return calls

    def calls(self, endings: Sequence[Single]) -> list[ScriptCall]:
        """Calls for the first of these, as many as one transaction bears: one for each, but for
        waits of a queue that stand next to each other."""
        calls: list[ScriptCall] = []
        arguments = 0
        for queue, run in groupby(endings, _queue_of_wait):
            some = list(run)
            width = WAITS_MAX if queue is not None else 1
            for at in range(0, len(some), width):
                if arguments > ARGUMENTS_MAX:
                    return calls
                calls.append(self.call(*some[at : at + width]))
                arguments += len(calls[-1].arguments)
        return calls

    def call(self, *endings: Single) -> ScriptCall:
        """Several only of waits of one queue."""
        if isinstance(endings[0], Wait):
            waits = cast("tuple[Wait, ...]", endings)
            return ScriptCall(
                scripts.WAIT_NODES, (self._keys[0], *_DATES), _wait_arguments(self._group, waits)
            )
        (ending,) = endings
        script, names, arguments = _SINGLY[type(ending)]
        return ScriptCall(script(), (self._keys[0], *names), arguments(self._group, ending))


def _queue_of_wait(ending: Single) -> str | None:
    return ending.entry.queue if isinstance(ending, Wait) else None


def _allowed_arguments(failure: AllowedFailure) -> list[Argument]:
    opens, joins, later, *opened = advance_arguments(failure.node)
    brief = _brief(error_of(failure.output))
    return [opens, joins, later, failure.report, brief, failure.dead_letter, *opened]


def _retry_arguments(group: str, retry: RetryLater) -> list[Argument]:
    entry, record, pause_ms, failures, error, report = retry
    ids: list[Argument] = [entry.name, entry.execution_id, entry.node_id]
    return [group, pause_ms, *ids, record, failures, error, report, _brief(error)]


def _wait_arguments(group: str, waits: Sequence[Wait]) -> list[Argument]:
    said: list[Argument] = [group, len(waits), *(wait.entry.name for wait in waits)]
    for wait in waits:
        entry, record, waker, number, due_ms, text = wait
        due = "" if due_ms is None else due_ms
        # Its failures say which child it is.
        meanwhile = "keep" if waker == CHILD else "leave" if isinstance(wait, ItemPause) else ""
        said += (entry.execution_id, entry.node_id, record, number, waker, due, text, meanwhile)
    return said


def error_of(output: bytes) -> str:
    """What the output of a failed node says."""
    return str(orjson.loads(output)["error"])


def traceback_of(report: bytes) -> str | None:
    """None where the node failed on purpose."""
    return orjson.loads(report).get("traceback") if report else None


def _brief(error: str) -> str:
    """What the stream of events bears of an error: it is kept in memory for some time."""
    return error if len(error) <= EVENT_ERROR_CHARS_MAX else f"{error[:EVENT_ERROR_CHARS_MAX]}…"


def _failure_arguments(group: str, failure: Failure) -> list[Argument]:
    entry = failure.entry
    inline = failure.downstream[:DEPENDENTS_PER_CALL_MAX]
    return [
        group,
        now_ms(),
        entry.name,
        entry.execution_id,
        entry.node_id,
        failure.record,
        failure.output,
        failure.downstream_output,
        failure.dead_letter,
        failure.report,
        _brief(error_of(failure.output)),
        len(failure.downstream) - len(inline),
        entry.plan_digest,
        failure.looks,
        *inline,
    ]


class _Single(NamedTuple):
    """A call that commits one ending: its script, its keys behind the stream, its arguments."""

    script: Callable[[], Script]
    names: tuple[str, ...]
    arguments: Callable[[str, Any], list[Argument]]


_DATES: Final = (keys.RETRIES, keys.ALARMS, keys.RETRIES_WAKEUP)
_PAUSES: Final = (keys.RETRIES, keys.RETRIES_WAKEUP)
_SINGLY: Final[Mapping[type[Single], _Single]] = {
    Failure: _Single(
        lambda: scripts.FAIL_NODE,
        (keys.ACTIVE, keys.CONTINUATIONS, keys.DEAD_LETTERS),
        _failure_arguments,
    ),
    RetryLater: _Single(lambda: scripts.RETRY_NODE, _PAUSES, _retry_arguments),
    ItemRetry: _Single(lambda: scripts.RETRY_ITEM, _PAUSES, _retry_arguments),
}
