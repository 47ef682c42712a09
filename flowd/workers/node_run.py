"""What is known of a node before its handler is called, and what is committed after."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

import orjson

from flowd.dag.graph import Plan, PlannedNode
from flowd.errors import FlowdError
from flowd.log import describe_error
from flowd.orchestrator.executor import node_failure
from flowd.store.executions import now_ms
from flowd.store.tasks import Completion, Entry, Failure, attempt_record
from flowd.workers.registry import Handler

OUTPUT_BYTES_MAX: Final = 16 * 1024 * 1024
ERROR_CHARS_MAX: Final = 2_000


class PreparedNode(NamedTuple):
    """An entry with everything its handler call needs. `inputs` is upstream output by node id."""

    entry: Entry
    plan: Plan
    node: PlannedNode
    handler: Handler
    inputs: Mapping[str, Any]


def complete_node(
    prepared: PreparedNode, consumer: str, started_ms: int, output: object
) -> Completion | Failure:
    """What to commit for a handler that returned; a failure when that is no JSON object."""
    if not isinstance(output, dict):
        returned = type(output).__name__
        error = f"handler {prepared.node.handler!r} returned {returned}; it must return a dict"
        return fail_node(prepared, consumer, started_ms, error)
    try:
        text = orjson.dumps(output)
    except (TypeError, ValueError) as unserializable:
        error = f"handler {prepared.node.handler!r} returned what is not JSON: {unserializable}"
        return fail_node(prepared, consumer, started_ms, error)
    if len(text) > OUTPUT_BYTES_MAX:
        error = f"the output has {len(text)} bytes; at most {OUTPUT_BYTES_MAX} are kept"
        return fail_node(prepared, consumer, started_ms, error)
    record = attempt_record(prepared.entry, consumer, started_ms, now_ms())
    return Completion(prepared.entry, prepared.node, record, text)


def fail_node(prepared: PreparedNode, consumer: str, started_ms: int, error: str) -> Failure:
    """What to commit for a node that failed: the error, and all that cannot run without it."""
    record = attempt_record(prepared.entry, consumer, started_ms, now_ms())
    shown = error if len(error) <= ERROR_CHARS_MAX else error[:ERROR_CHARS_MAX] + "…"
    return node_failure(prepared.plan, prepared.entry, record=record, error=shown)


def error_text(error: BaseException) -> str:
    """An exception for users: flowd's own say what happened, others need their type to be clear."""
    if isinstance(error, FlowdError):
        return str(error)
    if isinstance(error, SystemExit):
        return f"the handler called sys.exit({error.code!r})"
    return describe_error(error)
