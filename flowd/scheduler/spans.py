"""The spans of an execution, from what is stored of it; their ids follow from its id alone.

So one that is exported twice is the same trace, and a child has its place in that of its root
without knowing anything else of it.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from flowd.store.traces import EndedExecution, EndedNode
from flowd.workflow.graph import Plan, PlannedNode
from flowd.workflow.ids import split_item
from flowd.workflow.states import ExecutionState, NodeState

ERROR_CHARS_MAX: Final = 1_000
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")


class Context(NamedTuple):
    """A span of a trace; `is_sampled` is what the caller it came from says, None without one."""

    trace_id: int
    span_id: int
    is_sampled: bool | None = None


@dataclass(frozen=True, slots=True)
class Span:
    """`parent` is None for the first of a trace; `error` is None for what went well."""

    name: str
    context: Context
    parent: Context | None
    start_ms: int
    end_ms: int
    attributes: Mapping[str, str | int]
    error: str | None = None


def parse_traceparent(text: str) -> Context | None:
    """None for what is none by W3C Trace Context."""
    found = _TRACEPARENT.fullmatch(text.strip())
    if found is None or (found[4] and text.startswith("00")):
        return None
    context = Context(int(found[1], 16), int(found[2], 16), bool(int(found[3], 16) & 1))
    return context if context.trace_id and context.span_id else None


def span_id(execution_id: str, node_id: str = "", attempt: int = 0) -> int:
    """Of an execution, one of its nodes, or one attempt of that."""
    named = f"{execution_id} {node_id} {attempt}".encode()
    return int.from_bytes(hashlib.sha256(named).digest()[:8]) or 1


def execution_span(execution: EndedExecution) -> Span:
    """The id of its trace is that of the root's execution, unless somebody's trace goes on in it;
    a child is inside the node that waited for it."""
    kin, caller = execution.kin, parse_traceparent(execution.traceparent)
    root_id = kin.root_id if kin else execution.execution_id
    trace_id = caller.trace_id if caller else int(root_id, 16)
    is_sampled = caller.is_sampled if caller else None
    parent = caller
    if kin is not None:
        parent = Context(trace_id, span_id(kin.parent_id, kin.node_id), is_sampled)
    origin = execution.origin
    told: dict[str, str | int] = {
        "flowd.execution_id": execution.execution_id,
        "flowd.workflow": execution.name,
        "flowd.status": execution.status,
        "flowd.nodes": execution.nodes,
        "flowd.definition": origin.definition,
        "flowd.schedule": origin.schedule,
        "flowd.scheduled_at": origin.scheduled_at,
        "flowd.rerun_of": execution.rerun_of,
        "flowd.parent": kin.parent_id if kin else "",
        **{f"flowd.label.{name}": value for name, value in origin.labels.items()},
    }
    has_failed = execution.status == ExecutionState.FAILED
    return Span(
        execution.name or "execution",
        Context(trace_id, span_id(execution.execution_id), is_sampled),
        parent,
        execution.started_ms,
        max(execution.started_ms, execution.finished_ms),
        {name: value for name, value in told.items() if value != ""},
        execution.error[:ERROR_CHARS_MAX] if has_failed else None,
    )


def node_spans(execution: EndedExecution, top: Span, node: EndedNode, plan: Plan) -> Iterator[Span]:
    """Of a node, or an item, which is inside its map; one that was tried again has a span for each
    of its attempts. `top` is that of its execution."""
    above, index = split_item(node.node_id)
    inside = span_id(execution.execution_id, above) if index else top.context.span_id
    planned = plan.find(node.node_id)
    times = [_times(node, place, execution.finished_ms) for place in range(len(node.attempts))]
    own = top.context._replace(span_id=span_id(execution.execution_id, node.node_id))
    newest = node.attempts[-1]
    told: dict[str, str | int] = {
        "flowd.execution_id": execution.execution_id,
        "flowd.node_id": node.node_id,
        "flowd.handler": _handler(planned) if planned else "",
        "flowd.state": node.state or "",
        "flowd.attempts": newest.record.attempt or 1,
        **_attempt_attributes(node, -1),
    }
    yield Span(
        node.node_id,
        own,
        top.context._replace(span_id=inside),
        times[0][0],
        max(end_ms for _, end_ms in times),
        {name: value for name, value in told.items() if value != ""},
        newest.error[:ERROR_CHARS_MAX] if node.state is NodeState.FAILED else None,
    )
    if len(times) == 1:
        return
    for place, (start_ms, end_ms) in enumerate(times):
        record, error = node.attempts[place]
        number = record.attempt or 1
        has_failed = error != "" or (node.state is NodeState.FAILED and record is newest.record)
        yield Span(
            f"{node.node_id} #{number}",
            own._replace(span_id=span_id(execution.execution_id, node.node_id, number)),
            own,
            start_ms,
            end_ms,
            {"flowd.attempt": number, **_attempt_attributes(node, place)},
            error[:ERROR_CHARS_MAX] if has_failed else None,
        )


def _handler(node: PlannedNode) -> str:
    return node.map.item.handler if node.map else node.handler


def _attempt_attributes(node: EndedNode, place: int) -> dict[str, str | int]:
    record = node.attempts[place].record
    told: dict[str, str | int | None] = {
        "flowd.worker": record.worker,
        "flowd.waited_ms": record.waited_ms,
    }
    return {name: value for name, value in told.items() if value is not None}


def _times(node: EndedNode, place: int, finished_ms: int) -> tuple[int, int]:
    """Begin and end of an attempt. One whose worker took its times along lasts from the queue to
    the next attempt; the last of those to the end of the execution."""
    record = node.attempts[place].record
    start_ms = record.started_ms or record.queued_ms or finished_ms
    end_ms = record.finished_ms
    if end_ms is None:
        behind = node.attempts[place + 1].record if place + 1 < len(node.attempts) else None
        end_ms = (behind.queued_ms if behind else None) or finished_ms
    return start_ms, max(start_ms, end_ms)
