"""What is said of an execution that waits for a place of its workflow's `concurrency`."""

from __future__ import annotations

from flowd.diagnosis.phrases import listed, span
from flowd.store.places import Place

HOLDERS_NAMED_MAX = 3


def place_text(place: Place, now_ms: int) -> str:
    of_key = f" with the key {place.key!r}" if place.key else ""
    since = "" if place.since_ms is None else f", for {span(max(0, now_ms - place.since_ms))} now"
    most = "1 runs" if place.max == 1 else f"{place.max:,} run"
    text = f"it waits for a place{since}: of {place.name!r} at most {most} at a time{of_key}"
    named = list(place.holders[:HOLDERS_NAMED_MAX])
    more = len(place.holders) - len(named)
    if named:
        which = listed(named) if not more else f"{', '.join(named)} and {more:,} more"
        text += f", now {which}"
    if place.ahead:
        text += f"; {place.ahead:,} wait longer"
    return text
