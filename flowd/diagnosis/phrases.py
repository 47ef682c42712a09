"""How things are said: lists, numbers and spans of time, as people say them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

NAMES_SHOWN_MAX: Final = 10


def sentence(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}."


def listed(names: Sequence[str]) -> str:
    """`A`, `A and B`, `A, B and C`; the first few of many."""
    shown = list(names[:NAMES_SHOWN_MAX])
    if hidden := len(names) - len(shown):
        shown.append(f"{hidden:,} more")
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}"


def ahead(count: int) -> str:
    if count == 0:
        return "no entry is"
    return "1 entry is" if count == 1 else f"{count:,} entries are"


def span(ms: int) -> str:
    """A length of time as people say it: `0.4 s`, `12 s`, `3 min 5 s`, `2 h 10 min`."""
    seconds = max(0, ms) / 1000
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"
