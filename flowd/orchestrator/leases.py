"""When a worker counts as dead: its heartbeat has stood still, by the observer's own clock.

Redis's idle times follow its wall clock, and a jump of an hour would take everybody's work away or
nobody's. A sequence number compared against a monotonic clock knows neither jumps nor time zones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

LEASE_S: Final = 30.0
RENEW_EVERY_S: Final = 5.0
# A worker that could not renew for this long lets go, well before anybody may take its work.
LET_GO_AFTER_S: Final = 0.7 * LEASE_S


class LeaseWatch:
    """Remembers when each consumer's heartbeat was last seen to move."""

    def __init__(self) -> None:
        self._seen: dict[str, tuple[int | None, float]] = {}

    def expired(self, leases: Mapping[str, int | None], now_s: float) -> list[str]:
        """The consumers whose heartbeat has not moved for LEASE_S; `now_s` is monotonic.

        A consumer without a lease (None) expires like one whose heartbeat stands still.
        """
        self._seen = {
            consumer: self._last_move(consumer, beat, now_s) for consumer, beat in leases.items()
        }
        return [
            consumer for consumer, (_, moved_s) in self._seen.items() if now_s - moved_s >= LEASE_S
        ]

    def pause(self) -> None:
        """Forget everything: while Redis was away nobody could renew, and nobody is to blame."""
        self._seen.clear()

    def _last_move(self, consumer: str, beat: int | None, now_s: float) -> tuple[int | None, float]:
        known = self._seen.get(consumer)
        return known if known is not None and known[0] == beat else (beat, now_s)
