"""Writes logs as a worker does."""

from __future__ import annotations

from flowd.config import Settings
from flowd.node_log import LogPiece
from flowd.store import Store
from flowd.store.logs import LogWriter
from flowd.store.redis import scripts

START = 1_764_000_000_000


class Talk:
    """Each call of `say` adds an entry; `skip` leaves out so many numbers before it."""

    def __init__(self, settings: Settings, store: Store) -> None:
        self._client = store._client
        self._writer = LogWriter(settings)
        self.numbers: dict[tuple[str, str, int], int] = {}

    async def say(
        self,
        execution_id: str,
        node_id: str,
        *texts: str,
        attempt: int = 1,
        skip: int = 0,
        gone: tuple[int, ...] = (),
        dropped: int = 0,
        at_ms: int = START,
    ) -> str:
        """The outcome word."""
        key = (execution_id, node_id, attempt)
        number = self.numbers[key] = self.numbers.get(key, 0) + 1 + skip
        entry = "\n".join(f"{at_ms} stdout {text}" for text in texts).encode()
        piece = LogPiece(*key, ((number, entry),), gone, dropped, len(entry), len(texts))
        call = self._writer.call(piece)
        return str(await self._client.run(scripts.APPEND_LOG, call[3:6], *call[6:]))
