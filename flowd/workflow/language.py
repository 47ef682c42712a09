"""Which version of the language of workflows a definition needs, and which one this flowd knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from flowd.workflow.ids import WORKFLOW

# One more with each addition that an older process would run wrongly: 1 are the fields and handlers
# below, and `finally`; 2 are children, whose end an older process tells nobody; 3 are `concurrency`
# and limits, of which it gives no place back, and queues; 4 is `execution.scheduled_at`, which it
# does not know.
LANGUAGE: Final = 4
_PLACES: Final = 3
_CHILDREN: Final = 2
_FIELDS: Final = frozenset({"when", "after", "allow_failure", "repeat", "map"})
_HANDLERS: Final = frozenset({"delay", "signal"})
_HOLDING_BACK: Final = frozenset({"limit"})


def language_of(
    nodes: Iterable[Mapping[str, Any]],
    *,
    has_finally: bool,
    has_places: bool = False,
    has_queues: bool = False,
    reads_schedule: bool = False,
) -> int:
    """0 for what every version runs as it is meant."""
    if reads_schedule:
        return LANGUAGE
    if has_places or has_queues:
        return _PLACES
    needed = 1 if has_finally else 0
    for node in nodes:
        if not _HOLDING_BACK.isdisjoint(node):
            return _PLACES
        if node["handler"] == WORKFLOW:
            needed = _CHILDREN
        elif node["handler"] in _HANDLERS or not _FIELDS.isdisjoint(node):
            needed = max(needed, 1)
    return needed
