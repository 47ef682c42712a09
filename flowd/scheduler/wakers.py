"""Prove that what a node waits for can still wake it."""

from __future__ import annotations

from typing import Final

from flowd.store.waits import Decision, WaitRecord

# Who comes by itself, whenever that is, and needs no date.
_UNDATED: Final = frozenset({"signal"})


def has_waker(wait: WaitRecord | None, decision: Decision | None) -> bool:
    """Of a WAITING node that stands among no dates."""
    if wait is None or (decision is not None and decision.number >= wait.number):
        return False
    return wait.due_ms is None and wait.waker in _UNDATED
