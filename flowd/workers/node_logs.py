"""What the nodes of one worker say, until it is stored: sent with whatever the shift sends next,
and by itself where that takes too long.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable, Sequence
from typing import Final

from flowd.log import get_logger
from flowd.node_log import LogPiece, NodeLog

log = get_logger(__name__)

# What a killed worker loses is younger than twice this.
FLUSH_S: Final = 0.1
# One call: some milliseconds of the server's time.
_BYTES_PER_CALL: Final = 2 * 1024 * 1024
_PIECES_PER_CALL: Final = 256


class NodeLogs:
    """One per worker process. `on_due` is called when something waits to be sent for too long."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._loop = asyncio.get_running_loop()
        self._thread = threading.get_ident()
        # Those that have ended come first: their nodes end in the same call.
        self._ended: dict[NodeLog, None] = {}
        self._speaking: dict[NodeLog, None] = {}
        self._taken: list[NodeLog] = []
        self._timer: asyncio.TimerHandle | None = None
        self._is_late = False
        self.on_due: Callable[[], None] = _do_nothing

    def open(self, execution_id: str, node_id: str, attempt: int) -> NodeLog:
        return NodeLog((execution_id, node_id, attempt), self._bytes_max, self._note)

    def _note(self, node_log: NodeLog) -> None:
        if threading.get_ident() == self._thread:
            self._add(node_log)
            return
        # The loop may be closed: then nobody stores it.
        with contextlib.suppress(RuntimeError):
            self._loop.call_soon_threadsafe(self._add, node_log)

    def _add(self, node_log: NodeLog) -> None:
        (self._ended if node_log.is_closed else self._speaking)[node_log] = None
        self._set_timer()

    def _set_timer(self) -> None:
        if self._timer is None:
            self._timer = self._loop.call_later(FLUSH_S, self._make_due)

    def _make_due(self) -> None:
        self._timer = None
        if self.is_pending:
            self._is_late = True
            self.on_due()

    def close(self, node_log: NodeLog) -> None:
        """Hear nothing more of an attempt, and send what it has said with its end."""
        node_log.close()
        self._speaking.pop(node_log, None)
        if node_log.has_news:
            self._ended[node_log] = None
            self._set_timer()

    @property
    def is_pending(self) -> bool:
        return bool(self._ended or self._speaking)

    @property
    def is_due(self) -> bool:
        # What was late may have been stored meanwhile, or forgotten with its attempt: a shift that
        # heard of it all the same would find nothing to send, and ask again for ever.
        return self._is_late and self.is_pending

    def take(self) -> Sequence[LogPiece]:
        self._is_late = False
        self._taken, pieces, size = [], [], 0
        for node_log in [*self._ended, *self._speaking]:
            piece = node_log.take()
            if piece is None:
                self._forget(node_log)
                continue
            self._taken.append(node_log)
            pieces.append(piece)
            size += piece.growth
            if size > _BYTES_PER_CALL or len(pieces) >= _PIECES_PER_CALL:
                break
        return pieces

    def settle(self, pieces: Sequence[LogPiece], outcomes: Sequence[str]) -> None:
        dropped, reason = 0, ""
        for node_log, outcome in zip(self._taken, outcomes, strict=True):
            if outcome == "kept":
                continue
            lines = node_log.settle(is_stored=outcome in ("stored", "unknown"))
            if lines and outcome != "full":
                dropped, reason = dropped + lines, outcome
            if not node_log.has_news:
                self._forget(node_log)
        if dropped:
            names = pieces[0]._asdict()
            facts = {name: names[name] for name in ("execution_id", "node_id", "attempt")}
            log.warning("node.log_dropped", **facts, lines=dropped, reason=reason)
        if self.is_pending:
            self._set_timer()

    def _forget(self, node_log: NodeLog) -> None:
        self._ended.pop(node_log, None)
        self._speaking.pop(node_log, None)


def _do_nothing() -> None:
    """What there is to do while no shift works."""
