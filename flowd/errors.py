"""Every error flowd raises on purpose: one tree, each with a public code that never changes.

The tree knows neither HTTP nor exit codes: the API and the command line each map the codes.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Final

# Ten years, with leap days.
WAIT_S_MAX: Final = 3_653 * 86_400.0
_ERROR: Final = frozenset({"error"})


@dataclass(frozen=True, slots=True)
class Problem:
    """One thing wrong with what a user sent.

    `path` leads to the value (`dag.nodes[2].dependencies[0]`), `code` is stable, `message` says
    what is wrong with the value quoted and what to do when we know.
    """

    path: str
    code: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class FlowdError(Exception):
    """Base of the tree. `str(error)` is a sentence for a user."""

    code: ClassVar[str] = "internal"


class InvalidWorkflow(FlowdError):
    """A definition was refused; `problems` holds every reason, never only the first."""

    code = "invalid_workflow"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


class InvalidRequest(FlowdError):
    """A query parameter, or a body beside a workflow, was refused; `problems` has every reason."""

    code = "invalid_request"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("; ".join(str(problem) for problem in self.problems))


class IdempotencyMismatch(FlowdError):
    """This Idempotency-Key came before, with another body."""

    code = "idempotency_mismatch"

    def __init__(self) -> None:
        super().__init__(
            "this Idempotency-Key was used before with another request; use a new key for a new one"
        )


class InvalidSettings(FlowdError):
    """flowd.toml, the environment or a flag holds something flowd cannot run with."""

    code = "invalid_settings"

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))


class UnknownExecution(FlowdError):
    """No execution has this id."""

    code = "unknown_execution"

    def __init__(self, execution_id: str) -> None:
        self.execution_id = execution_id
        super().__init__(f"no execution has the id {execution_id!r}; submit a workflow to get one")


class UnknownNode(FlowdError):
    """The execution has no node of this id."""

    code = "unknown_node"

    def __init__(self, execution_id: str, node_id: str) -> None:
        self.execution_id = execution_id
        self.node_id = node_id
        super().__init__(
            f"execution {execution_id!r} has no node {node_id!r}; "
            f"GET /workflows/{execution_id}/nodes lists its nodes"
        )


class OutputFailed(FlowdError):
    """A template in the `output` of a workflow finds nothing in what its nodes have put out."""

    code = "output_failed"

    def __init__(self, execution_id: str, reason: str) -> None:
        self.execution_id = execution_id
        super().__init__(f"the output of execution {execution_id!r} cannot be made: {reason}")


class UnknownDefinition(FlowdError):
    """No definition is saved under this name, or not this version of it."""

    code = "unknown_definition"

    def __init__(self, name: str, version: int | None = None, latest: int = 0) -> None:
        self.name = name
        self.version = version
        text = f"no definition {name!r} is saved; GET /definitions lists those that are"
        if latest:
            text = f"definition {name!r} has no version {version}; its latest is {latest}"
        super().__init__(text)


class DefinitionInUse(FlowdError):
    """A definition that schedules run, or that others call, is not deleted."""

    code = "definition_in_use"

    def __init__(self, name: str, schedules: Sequence[str], callers: Sequence[str] = ()) -> None:
        self.name = name
        self.schedules = tuple(schedules)
        self.callers = tuple(callers)
        users, kind = (self.schedules, "schedule") if schedules else (self.callers, "definition")
        listed = ", ".join(map(repr, users[:5]))
        more = f" and {len(users) - 5} more" if len(users) > 5 else ""
        hint = "delete the schedule first" if schedules else "delete or change that first"
        super().__init__(f"definition {name!r} is run by the {kind} {listed}{more}; {hint}")


class UnknownSchedule(FlowdError):
    """There is no schedule of this name."""

    code = "unknown_schedule"

    def __init__(self, name: str) -> None:
        self.name = name
        super().__init__(f"there is no schedule {name!r}; GET /schedules lists them")


class ScheduleBusy(FlowdError):
    """A schedule was to run by hand while its execution before has not ended."""

    code = "schedule_busy"

    def __init__(self, name: str, execution_ids: Sequence[str], *, has_queue: bool) -> None:
        self.name = name
        running = f"execution {execution_ids[0]!r}" if execution_ids else "another execution"
        also = " and another time waits for its end" if has_queue else ""
        super().__init__(
            f"the schedule {name!r} is not run: {running} has not ended{also}; "
            "with `force` it runs beside that"
        )


class UnknownDeadLetter(FlowdError):
    """No dead letter has this id; it may have been deleted, or pushed out by newer ones."""

    code = "unknown_dead_letter"

    def __init__(self, letter_id: str) -> None:
        self.letter_id = letter_id
        super().__init__(f"there is no dead letter {letter_id!r}; GET /dead-letters lists them")


class UnknownTopic(FlowdError):
    """The manual has no such page."""

    code = "unknown_topic"


class WrongState(FlowdError):
    """What was asked of an execution does not go with the state it is in."""

    code = "wrong_state"

    def __init__(self, execution_id: str, status: str, verb: str, hint: str = "") -> None:
        self.execution_id = execution_id
        self.status = status
        super().__init__(f"cannot {verb} execution {execution_id!r}: it is {status}{hint}")


class NoSignal(FlowdError):
    """This node waits for no signal, whatever comes."""

    code = "no_signal"

    def __init__(
        self, execution_id: str, node_id: str, handler: str, *, has_items: bool = False
    ) -> None:
        self.execution_id = execution_id
        self.node_id = node_id
        why = f"its handler is {handler!r}, and only nodes of the handler 'signal' do"
        if has_items:
            why = f"each of its items does; name one of its items, for example {f'{node_id}.0'!r}"
        super().__init__(f"node {node_id!r} of execution {execution_id!r} takes no signal: {why}")


class NoMap(FlowdError):
    """This node runs once, for no list."""

    code = "no_map"

    def __init__(self, execution_id: str, node_id: str) -> None:
        self.execution_id = execution_id
        self.node_id = node_id
        super().__init__(
            f"node {node_id!r} of execution {execution_id!r} has no items: only one with `map` does"
        )


class AlreadyDecided(FlowdError):
    """What a node waited for was decided before; `decision` is what stands (JSON)."""

    code = "already_decided"

    def __init__(
        self, execution_id: str, node_id: str, said: str, decision: Mapping[str, Any]
    ) -> None:
        self.execution_id = execution_id
        self.node_id = node_id
        self.decision = decision
        super().__init__(f"node {node_id!r} of execution {execution_id!r} is decided: {said}")


class OlderProcess(FlowdError):
    """A workflow uses what a worker of an older version, on the same Redis, would ignore."""

    code = "older_process"

    def __init__(self, consumer: str, host: str = "") -> None:
        self.consumer = consumer
        where = f" on {host!r}" if host else ""
        super().__init__(
            f"the worker {consumer!r}{where} is of an older version and would run this workflow "
            "wrongly; upgrade it, or stop it, then submit the workflow again"
        )


class ResultsTooLarge(FlowdError):
    """The outputs of an execution are more than one answer may hold."""

    code = "results_too_large"

    def __init__(self, execution_id: str, size: int, bytes_max: int) -> None:
        self.execution_id = execution_id
        super().__init__(
            f"the results of execution {execution_id!r} have {size:,} bytes, more than the limit "
            f"of {bytes_max:,}; read them one by one: GET /workflows/{execution_id}/nodes lists "
            f"the nodes page by page, and GET /workflows/{execution_id}/nodes/<node_id> has the "
            "output of each"
        )


class NoCallback(FlowdError):
    """The workflow of this execution, or this schedule, asks for no callback."""

    code = "no_callback"

    def __init__(self, what: str) -> None:
        super().__init__(f"{what} has no callback")


class TemplateError(FlowdError):
    """A template found nothing where it looked."""

    code = "template_failed"


class HandlerFailed(FlowdError):
    """A handler did its work and the answer is no.

    `kinds` are what a node's `retry.on` may name this failure by; `report` (a JSON object) is what
    is kept beside the error: `traceback`, or as `output` what a program wrote.
    """

    code = "handler_failed"
    # Of the class too: one that inherits from it may not call __init__.
    kinds: frozenset[str] = _ERROR
    report: bytes = b""

    def __init__(self, reason: str, *, kinds: frozenset[str] = _ERROR) -> None:
        self.kinds = kinds
        super().__init__(reason)


class ProcessDied(HandlerFailed):
    """The process that a handler had to itself ended before its call did."""


class Retry(HandlerFailed):
    """A handler failed, and another attempt may succeed: `after_s` seconds from now at the soonest.

    None for `after_s` leaves the pause to the node's own settings; less than 0 is at once. Raises
    ValueError for what is no number of seconds.
    """

    code = "retry"
    after_s: float | None = None

    def __init__(
        self, reason: str = "", *, after_s: float | None = None, kinds: frozenset[str] = _ERROR
    ) -> None:
        self.after_s = None if after_s is None else max(0.0, _seconds(after_s))
        wait = "" if after_s is None else f" after {after_s:g} s"
        reason = reason or f"the handler asked to be called again{wait}"
        super().__init__(reason, kinds=frozenset(kinds))


def _seconds(value: object) -> float:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if not is_number or not math.isfinite(value):  # type: ignore[arg-type]
        raise ValueError(f"after_s is {value!r}; it must be a number of seconds")
    return value  # type: ignore[return-value]


class Wait(HandlerFailed):
    """A handler asks to be called again, `after_s` seconds from now: no failure, no outcome yet.

    The node is WAITING until then, and holds neither a worker nor a slot. Raises ValueError for
    what is no number of seconds, or more than ten years.
    """

    code = "wait"
    after_s: float | None = None

    def __init__(self, *, after_s: float) -> None:
        self.after_s = max(0.0, _seconds(after_s))
        if after_s > WAIT_S_MAX:
            raise ValueError(f"after_s is {after_s!r}; the longest wait is ten years")
        super().__init__(f"the handler waits for {after_s:g} s")


class WaitFor(Wait):
    """A handler of flowd's own waits for what will be decided; begun anew it waits for the same.

    `waker`, `due_ms` and `text` are as of the ending.
    """

    code = "wait_for"

    def __init__(self, waker: str, due_ms: int | None = None, text: str = "") -> None:
        self.waker, self.due_ms, self.text = waker, due_ms, text
        HandlerFailed.__init__(self, f"the handler waits: {waker}")


class Fail(HandlerFailed):
    """A handler failed, and no further attempt would change that."""

    code = "fail"

    def __init__(self, reason: str = "", *, kinds: frozenset[str] = _ERROR) -> None:
        super().__init__(reason or "the handler failed for good", kinds=frozenset(kinds))


class SkipNode(HandlerFailed):
    """It was decided that a node does not run; the text is the reason. No failure, no attempt."""

    code = "skip_node"


class DependencyFailed(Fail):
    """A node that looks at how its dependencies ended cannot run; it is no failure of its own."""

    code = "dependency_failed"


class HandlerElsewhere(HandlerFailed):
    """This worker does not know the handler of a node, and another one does: no failure."""


class NotSent(HandlerFailed):
    """There was no connection, so a service has seen nothing of the call."""

    code = "not_sent"


class BadHandlers(FlowdError):
    """The modules of `[handlers]` cannot be used; the text holds the traceback, if there is one."""

    code = "bad_handlers"


class UnknownHandler(FlowdError):
    """No handler is registered under this name."""

    code = "unknown_handler"


class StoreError(FlowdError):
    """The store could not do what was asked; nothing was half done."""

    code = "store_failed"


class MissingScript(StoreError):
    """The server has forgotten our scripts (SCRIPT FLUSH, restart): load and call again."""

    code = "missing_script"


class MissingGroup(StoreError):
    """The stream or its consumer group is gone (FLUSHALL, XGROUP DESTROY)."""

    code = "missing_group"


class WrongType(StoreError):
    """A key holds another type than flowd keeps there."""

    code = "wrong_type"


class StoreUnavailable(StoreError):
    """Redis does not answer, is loading or went away; the same call may be made again."""

    code = "store_unavailable"


class StoreAway(StoreUnavailable):
    """Redis does not answer or is not ready; unlike a refused login, that may pass by itself."""


class StoreFull(StoreError):
    """Redis is at its memory limit and refuses what would need more."""

    code = "store_full"


class StoreReadOnly(StoreAway):
    """This Redis is a replica: what is asked belongs elsewhere, and may be asked again."""

    code = "store_read_only"


class CorruptExecution(StoreError):
    """A key of this execution holds something flowd did not write."""

    code = "corrupt_execution"

    def __init__(self, execution_id: str, reason: str) -> None:
        self.execution_id = execution_id
        self.reason = reason
        super().__init__(f"execution {execution_id!r} is corrupt: {reason}")


class CorruptStore(StoreError):
    """A key that is about no single execution is of another type than flowd keeps there."""

    code = "corrupt_store"

    def __init__(self, key: str) -> None:
        self.key = key
        super().__init__(f"the key {key!r} in Redis is of another type than flowd keeps there")


class LeaseLost(FlowdError):
    """This worker's lease was given away: whatever it still runs belongs to somebody else."""

    code = "lease_lost"


class ServerFailed(FlowdError):
    """The embedded Redis server could not be started."""

    code = "server_failed"


class AlreadyRunning(FlowdError):
    """Another flowd holds the lock of this data directory, or the address it should listen on."""

    code = "already_running"


class CrashLoop(FlowdError):
    """A process of flowd never became ready, and the supervisor gave up on it."""

    code = "crash_loop"

    def __init__(self, role: str, tries: int, last_exit: str) -> None:
        self.role = role
        tried = "once" if tries == 1 else f"{tries} times"
        super().__init__(
            f"{role} was started {tried} and never became ready; the last one {last_exit}. "
            "The reason is in the lines above, or in log.file; correct it and start flowd again"
        )
