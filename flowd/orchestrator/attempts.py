"""What becomes of a node whose attempt has no output: a wait, another attempt, or its failure."""

from __future__ import annotations

import random
from typing import Final

from flowd.backoff import pause_after
from flowd.errors import (
    DependencyFailed,
    HandlerElsewhere,
    HandlerFailed,
    SkipNode,
    Wait,
    WaitFor,
)
from flowd.orchestrator.executor import node_failure
from flowd.store import endings
from flowd.store.endings import Ending, ItemRetry, RetryLater, Skip
from flowd.store.entries import Entry
from flowd.workflow.children import CHILD
from flowd.workflow.graph import Plan
from flowd.workflow.retrying import RetryPolicy
from flowd.workflow.signals import SIGNAL

# Before a node is queued again that came to a worker that does not know its handler: the others may
# all be busy, and this one takes it again meanwhile.
_HANDED_ON_FIRST_S: Final = 1.0
_HANDED_ON_LONGEST_S: Final = 10.0


def fail_attempt(
    plan: Plan,
    entry: Entry,
    error: HandlerFailed,
    *,
    record: str,
    default_policy: RetryPolicy,
) -> Ending:
    """What to commit; the text of the error is as users are to read it."""
    text = str(error)
    node = plan.node(entry.node_id)
    if isinstance(error, SkipNode) and node.choice is not None:
        return Skip(entry, node, record, text.encode())
    if isinstance(error, WaitFor):
        due_ms, number = error.due_ms, 1
        if error.waker == CHILD:
            number = entry.failures + 1
        if error.waker in (SIGNAL, CHILD) and node.timeout_s is not None:
            due_ms = round(1000 * node.timeout_s)
        return endings.Wait(entry, record, error.waker, number, due_ms, error.text)
    if isinstance(error, Wait):
        due_ms = round(1000 * (error.after_s or 0.0))
        pause = endings.ItemPause if node.is_item else endings.Wait
        return pause(entry, record, "date", entry.waits + 1, due_ms)
    if isinstance(error, DependencyFailed):
        return node_failure(plan, entry, record=record, error=text, is_own=False)
    later = ItemRetry if node.is_item else RetryLater
    if isinstance(error, HandlerElsewhere):
        pause_s = pause_after(
            max(1, entry.attempt - entry.failures),
            first_s=_HANDED_ON_FIRST_S,
            longest_s=_HANDED_ON_LONGEST_S,
        )
        return later(entry, record, round(1000 * pause_s), entry.failures, text)
    policy = default_policy.overridden_by(node.retry)
    failures = entry.failures + 1
    if policy.max_attempts > 1:
        text = f"attempt {failures} of {policy.max_attempts}: {text}"
    if not policy.wants_another(error, failures):
        if failures < policy.max_attempts:
            text += f"; {policy.why_no_other(error)}"
        return node_failure(plan, entry, record=record, error=text, report=error.report)
    # Chance spreads load here, and keeps no secret.
    pause_s = policy.pause_s(error, failures, random.random())
    pause_ms = round(1000 * pause_s)
    return later(entry, record, pause_ms, failures, text, error.report)
