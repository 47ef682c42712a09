"""What is known of a node before its handler is called, and what is committed after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from flowd.errors import Fail, ProcessDied
from flowd.handlers.outcome import OUTPUT_BYTES_MAX, as_failure
from flowd.handlers.registry import Handler
from flowd.orchestrator.attempts import fail_attempt
from flowd.orchestrator.executor import node_failure
from flowd.redaction import REDACTOR
from flowd.store.executions import now_ms
from flowd.store.tasks import (
    DEATHS_BEFORE_APART,
    Completion,
    Entry,
    Failure,
    RetryLater,
    attempt_record,
)
from flowd.workflow import exact_json
from flowd.workflow.graph import Plan, PlannedNode
from flowd.workflow.retrying import RetryPolicy

Ending = Completion | Failure | RetryLater


class PreparedNode(NamedTuple):
    """An entry with everything its handler call needs.

    `inputs` is upstream output by node id; `policy` what a node has that says nothing of retries.
    """

    entry: Entry
    plan: Plan
    node: PlannedNode
    handler: Handler
    inputs: Mapping[str, Any]
    policy: RetryPolicy


def complete_node(prepared: PreparedNode, consumer: str, started_ms: int, output: object) -> Ending:
    """What to commit for a handler that returned; a failure when that is no JSON object."""
    if not isinstance(output, dict):
        returned = type(output).__name__
        error = f"handler {prepared.node.handler!r} returned {returned}; it must return a dict"
        return fail_node(prepared, consumer, started_ms, Fail(error))
    try:
        text = exact_json.dumps(output)
    except (TypeError, ValueError) as unserializable:
        error = f"handler {prepared.node.handler!r} returned what is not JSON: {unserializable}"
        return fail_node(prepared, consumer, started_ms, Fail(error))
    text = REDACTOR.data(text)
    if len(text) > OUTPUT_BYTES_MAX:
        error = f"the output has {len(text)} bytes; at most {OUTPUT_BYTES_MAX} are kept"
        return fail_node(prepared, consumer, started_ms, Fail(error))
    record = attempt_record(prepared.entry, consumer, started_ms, now_ms())
    return Completion(prepared.entry, prepared.node, record, text)


def fail_node(
    prepared: PreparedNode, consumer: str, started_ms: int, error: BaseException
) -> Ending:
    """What to commit for an attempt that failed: another one later, or the failure of the node."""
    failure, entry = as_failure(error), prepared.entry
    record = attempt_record(entry, consumer, started_ms, now_ms())
    if isinstance(error, ProcessDied) and entry.deaths >= DEATHS_BEFORE_APART:
        text = f"given up: {entry.deaths} workers died while they ran this node, and then {failure}"
        return node_failure(prepared.plan, entry, record=record, error=text, dead_letter=text)
    return fail_attempt(
        prepared.plan,
        entry,
        failure,
        record=record,
        default_policy=prepared.policy,
    )
