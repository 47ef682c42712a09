"""How long to wait between tries: each time longer, up to a longest."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

# While Redis does not answer: short at first, so that a restart costs little; never long, as that
# is what work waits for beyond a failover.
_FIRST_S: Final = 0.02
_LONGEST_S: Final = 0.25


def pause_after(failures: int, *, first_s: float, longest_s: float, factor: float = 2.0) -> float:
    """Seconds from this failure in a row, the first is 1, to the next try."""
    # A float has no power of a thousand: more doublings than these are beyond any limit anyway.
    return min(longest_s, first_s * factor ** min(failures - 1, 100))


def growing_pauses(first_s: float = _FIRST_S, longest_s: float = _LONGEST_S) -> Iterator[float]:
    """Seconds, for ever."""
    pause_s = first_s
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, longest_s)
