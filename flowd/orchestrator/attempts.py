"""What becomes of a node whose attempt failed: another attempt later, or its failure."""

from __future__ import annotations

import random

from flowd.errors import HandlerFailed
from flowd.orchestrator.executor import node_failure
from flowd.store.tasks import Entry, Failure, RetryLater
from flowd.workflow.graph import Plan
from flowd.workflow.retrying import RetryPolicy


def fail_attempt(
    plan: Plan,
    entry: Entry,
    error: HandlerFailed,
    *,
    record: str,
    default_policy: RetryPolicy,
) -> Failure | RetryLater:
    """What to commit; the text of the error is as users are to read it."""
    text = str(error)
    policy = default_policy.overridden_by(plan.nodes[entry.node_id].retry)
    failures = entry.failures + 1
    if policy.max_attempts > 1:
        text = f"attempt {failures} of {policy.max_attempts}: {text}"
    if not policy.wants_another(error, failures):
        return node_failure(plan, entry, record=record, error=text, report=error.report)
    # Chance spreads load here, and keeps no secret.
    pause_s = policy.pause_s(error, failures, random.random())
    pause_ms = round(1000 * pause_s)
    return RetryLater(entry, record, pause_ms, failures, text, error.report)
