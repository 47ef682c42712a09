"""The bodies the API answers with. Clients rely on them: they may not grow a field.

The body of a submission is `flowd.workflow.definition.WorkflowDefinition`.
"""

from __future__ import annotations

from typing import Any

from pydantic import ConfigDict, Field

from flowd.api.contract.model import Model
from flowd.store.callbacks import CallbackState
from flowd.workflow.states import ExecutionState


class _Body(Model):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Health(_Body):
    status: str


class Submitted(_Body):
    execution_id: str
    message: str


class Triggered(_Body):
    message: str
    execution_id: str


class About(_Body):
    execution_id: str


class ExecutionStatus(_Body):
    execution_id: str
    status: ExecutionState


class ParentOf(_Body):
    """The node that an execution is run for."""

    execution_id: str
    node_id: str


class ShownExecution(ExecutionStatus):
    """What an execution has not does not stand there. `definition` is `name@version` of a saved
    workflow, `scheduled_at` the nominal time of its schedule."""

    parent: ParentOf = Field(default=None)  # type: ignore[assignment]
    definition: str = ""
    labels: dict[str, str] = {}  # noqa: RUF012 - pydantic copies it
    schedule: str = ""
    scheduled_at: str = ""


class ExecutionResults(_Body):
    execution_id: str
    results: dict[str, Any]


class ExecutionOutput(_Body):
    execution_id: str
    output: Any


class ExecutionOutcome(_Body):
    execution_id: str
    status: ExecutionState
    results: dict[str, Any]


class Validated(_Body):
    valid: bool
    nodes: int


class RerunNode(_Body):
    node_id: str
    why: str


class Rerun(_Body):
    """`execution_id` is null in a preview. Of `left_out` each node stays FAILED."""

    execution_id: str | None
    rerun_of: str
    reused: list[RerunNode]
    runs: list[RerunNode]
    left_out: list[RerunNode]


class CorrectedRerun(Rerun):
    """With a corrected definition: `removed` are the nodes that it does not have any more."""

    removed: list[RerunNode]


class Deleted(_Body):
    execution_id: str
    message: str


class CallbackDelivery(_Body):
    """`next_ms` is when it is tried next; null before the execution has ended, and at its end."""

    execution_id: str
    url: str
    state: CallbackState
    attempts: int
    next_ms: int | None
    last_status: int | None
    last_error: str | None
    delivered_ms: int | None


class ScheduleDelivery(_Body):
    """How the newest call goes, or the one that is due: `missed` and `skipped` are the times that
    were not told yet. `next_ms` is null where there is none to tell of."""

    name: str
    url: str
    state: CallbackState
    attempts: int
    next_ms: int | None
    last_status: int | None
    last_error: str | None
    delivered_ms: int | None
    missed: int
    skipped: int


class Readiness(_Body):
    """Each check says whether it is `ok`, and what it found."""

    status: str
    checks: dict[str, dict[str, Any]]


class SignalDecision(_Body):
    """What decided a node that waits for a signal: `data`, or why it was `rejected`, or that its
    time was over. `by` is the name of a token, null where there are none.
    """

    data: Any
    rejected: str | None
    timed_out: bool
    by: str | None
    at_ms: int


class Signalled(_Body):
    execution_id: str
    node_id: str
    decision: SignalDecision


class ProblemEntry(_Body):
    path: str
    code: str
    message: str


class ProblemDocument(_Body):
    """RFC 9457, with flowd's stable `code` and every single problem in `errors`."""

    type: str
    title: str
    status: int
    detail: str
    code: str
    errors: list[ProblemEntry]
    traceback: str | None = Field(
        None, description="of a defect, in development only: its traceback"
    )
    decision: SignalDecision | None = Field(
        None, description="of `already_decided`: what was decided before"
    )
    holders: list[str] | None = Field(
        None, description="of `limit_reached`: the executions that have the places"
    )
