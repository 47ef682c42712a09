"""What is known of a node before its handler is called, and what is committed after."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from flowd.errors import Fail, ProcessDied
from flowd.handlers.outcome import OUTPUT_BYTES_MAX, JsonText, as_failure
from flowd.handlers.registry import Handler
from flowd.orchestrator.attempts import fail_attempt
from flowd.orchestrator.executor import node_failure
from flowd.store import endings
from flowd.store.attempt_records import attempt_record, cached_record
from flowd.store.budgets import Payer
from flowd.store.endings import Completion, Ending, ItemCompletion
from flowd.store.entries import Entry
from flowd.store.executions import now_ms
from flowd.store.tasks import DEATHS_BEFORE_APART
from flowd.store.waits import Decision
from flowd.workflow import exact_json
from flowd.workflow.caching import Keep
from flowd.workflow.graph import Plan, PlannedNode
from flowd.workflow.repeating import OUTPUT, Repeat
from flowd.workflow.retrying import RetryPolicy


class PreparedNode(NamedTuple):
    """An entry with everything its handler call needs.

    `inputs` is upstream output by node id; `policy` what a node has that says nothing of retries;
    `decision` what ended its wait, where it has waited; `scope` what its `repeat` looks up;
    `payer` whose budget it spends, where that is not its own execution's; `place` the place of a
    limit it has to ask for before it starts; `keep` what its output is kept under.
    """

    entry: Entry
    plan: Plan
    node: PlannedNode
    handler: Handler
    inputs: Mapping[str, Any]
    policy: RetryPolicy
    decision: Decision | None = None
    scope: Mapping[str, Any] = MappingProxyType({})
    payer: Payer | None = None
    place: str = ""
    keep: Keep | None = None


def output_text(prepared: PreparedNode, output: object) -> bytes:
    """What a handler returned as JSON, with whatever secrets are in it. Raises Fail."""
    name = prepared.node.handler
    if not isinstance(output, dict):
        if isinstance(output, JsonText):
            return bytes(output)
        raise Fail(f"handler {name!r} returned {type(output).__name__}; it must return a dict")
    try:
        text = exact_json.dumps(output)
    except (TypeError, ValueError) as unserializable:
        raise Fail(f"handler {name!r} returned what is not JSON: {unserializable}") from None
    if len(text) > OUTPUT_BYTES_MAX:
        raise _too_large(text)
    return text


def complete_node(prepared: PreparedNode, consumer: str, started_ms: int, text: bytes) -> Ending:
    """What to commit for an output that was redacted. Raises Fail when it is too large now, or not
    what the node is repeated for."""
    if len(text) > OUTPUT_BYTES_MAX:
        raise _too_large(text)
    record = attempt_record(prepared.entry, consumer, started_ms, now_ms())
    if prepared.node.repeat is not None:
        wait = _repetition(prepared, prepared.node.repeat, record, text)
        if wait is not None:
            return wait
    if prepared.keep is not None and prepared.keep.is_hit:
        record = cached_record(prepared.entry, consumer, started_ms)
    node = prepared.node
    completion = ItemCompletion if not node.is_static and node.is_item else Completion
    return completion(prepared.entry, node, record, text, prepared.keep)


def _repetition(
    prepared: PreparedNode, repeat: Repeat, record: str, text: bytes
) -> endings.Wait | None:
    """The pause before the next call; None after the last."""
    entry, call = prepared.entry, prepared.entry.waits + 1
    scope = {OUTPUT: orjson.loads(text), **prepared.scope}
    if repeat.is_done(call, scope, text.decode("utf-8", "replace")):
        return None
    due_ms = round(1000 * repeat.pause_s(call))
    pause = endings.ItemPause if prepared.node.is_item else endings.Wait
    return pause(entry, record, "date", call, due_ms, repeat.progress(call))


def _too_large(text: bytes) -> Fail:
    return Fail(f"the output has {len(text)} bytes; at most {OUTPUT_BYTES_MAX} are kept")


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
