"""Whether the server that is reached now is the one it was, and has all that one had."""

from __future__ import annotations

import time
from collections.abc import Mapping


class Lineage:
    """What servers said of themselves, one after the other.

    A primary that was started again reads its own files. One that ran before the last was heard of
    was its replica: it was promoted, and lacks what had not reached it. Where a second decides,
    which is all that servers say of their age, a replica names the past that it has taken over.
    """

    def __init__(self) -> None:
        self.failovers = 0
        self._known: tuple[str, str] | None = None
        self._heard_s = 0.0

    def note_heard(self) -> None:
        """The server that was reached last has just answered."""
        self._heard_s = time.monotonic()

    def note_server(self, facts: Mapping[str, str]) -> bool:
        """Called with the fields of INFO after each connect; True where another server has become
        the primary, or this one again. Whose user may not ask for them is told of nothing."""
        if "run_id" not in facts or "master_replid" not in facts:
            return False
        known, self._known = self._known, (facts["run_id"], facts["master_replid"])
        # The difference of whole seconds: wrong by up to one, either way.
        began_s = time.monotonic() - int(facts.get("uptime_in_seconds", 0))
        heard_s = self._heard_s
        self.note_heard()
        if known is None or known == self._known:
            return False
        is_heir = facts.get("master_replid2") == known[1]
        if known[0] != self._known[0] and began_s + (-1.0 if is_heir else 1.0) >= heard_s:
            return False
        self.failovers += 1
        return True
