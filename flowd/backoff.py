"""How long to wait between tries while Redis does not answer."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

_FIRST_S: Final = 0.02
_LONGEST_S: Final = 1.0


def growing_pauses() -> Iterator[float]:
    """Seconds, for ever: short at first, so that a restart costs little, then one second."""
    pause_s = _FIRST_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, _LONGEST_S)
