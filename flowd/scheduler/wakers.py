"""Prove that what a node waits for can still wake it."""

from __future__ import annotations

from collections.abc import Set
from typing import Final

from flowd.store.waits import Decision, WaitRecord
from flowd.workflow.children import CHILD
from flowd.workflow.limiting import SLOT

# Who comes by itself, whenever that is, and needs no date.
_UNDATED: Final = frozenset({"signal"})


def has_waker(
    wait: WaitRecord | None,
    decision: Decision | None,
    live: Set[str],
    *,
    is_queued: bool = False,
) -> bool:
    """Of a WAITING node that stands among no dates; `live` are the children that have not ended; it
    `is_queued` where it stands among those who wait for its place of a limit."""
    if wait is not None and wait.waker == SLOT:
        return is_queued
    if wait is None or (decision is not None and decision.number >= wait.number):
        return False
    if wait.due_ms is not None:
        return False
    return wait.waker in _UNDATED or (wait.waker == CHILD and wait.text in live)
