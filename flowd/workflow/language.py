"""Which version of the language of workflows a definition needs, and which one this flowd knows."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

# One more with each addition that an older process would run wrongly: 1 are the fields and handlers
# below, and `finally`.
LANGUAGE: Final = 1
_FIELDS: Final = frozenset({"when", "after", "allow_failure", "repeat", "map"})
_HANDLERS: Final = frozenset({"delay", "signal"})


def language_of(nodes: Iterable[Mapping[str, Any]], *, has_finally: bool) -> int:
    """0 for what every version runs as it is meant."""
    needs_more = has_finally or any(
        node["handler"] in _HANDLERS or not _FIELDS.isdisjoint(node) for node in nodes
    )
    return LANGUAGE if needs_more else 0
