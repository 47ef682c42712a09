"""Nodes that wait for their next attempt."""

from __future__ import annotations

from typing import Final, NamedTuple

from flowd.config import Settings
from flowd.store.redis import keys, scripts
from flowd.store.redis.client import RedisClient

RETRIES_PER_CALL_MAX: Final = 500
RETRIES_PER_SCAN: Final = 1_000
# However many are due at once, those who wait for something else have their turn.
CALLS_MAX: Final = 20


class Dispatched(NamedTuple):
    """Seconds until the next node is due, None when none waits."""

    next_in_s: float | None


class Retries:
    """Raises StoreUnavailable while Redis does not answer; every call may be repeated."""

    def __init__(self, client: RedisClient, settings: Settings) -> None:
        self._client = client
        self._bell = client.new_session()
        self._stream = settings.tasks.stream

    async def dispatch(self) -> Dispatched:
        """Put those whose time has come in front of the workers, 10,000 at most."""
        for _ in range(CALLS_MAX):
            moved, left_ms = await self._client.run(
                scripts.DISPATCH_RETRIES, (keys.RETRIES, self._stream), RETRIES_PER_CALL_MAX
            )
            if moved < RETRIES_PER_CALL_MAX:
                break
        return Dispatched(left_ms / 1000 if left_ms != "" else None)

    async def keep_clock(self, reached_ms: int, jump_ms: int) -> tuple[int, int]:
        """The clock by which everything waits, and how far the server's was put back before it, ms.

        `reached_ms` is what it must have reached by now, as far as the caller knows, or 0; the
        server's may differ from that by `jump_ms`.
        """
        clock_ms, put_back_ms = await self._client.run(
            scripts.KEEP_CLOCK, (keys.CLOCK,), reached_ms, jump_ms
        )
        return clock_ms, put_back_ms

    async def waiting(self) -> list[tuple[str, str]]:
        """All that wait, as execution id and node id; one that comes or goes meanwhile may lack."""
        found: list[tuple[str, str]] = []
        cursor = "0"
        while True:
            cursor, some = await self.waiting_slice(cursor)
            found += some
            if cursor == "0":
                return found

    async def waiting_slice(self, cursor: str) -> tuple[str, list[tuple[str, str]]]:
        """Some of those that wait, and the cursor for more; `0` begins and ends."""
        next_cursor, flat = await self._client.execute(
            "ZSCAN", keys.RETRIES, cursor, "COUNT", RETRIES_PER_SCAN
        )
        pairs = (member.partition(" ") for member in flat[::2])
        return next_cursor, [(execution_id, node_id) for execution_id, _, node_id in pairs]

    async def wait_for_change(self, timeout_s: float) -> None:
        """Sleep, but no longer than until a node is to run earlier than all that waited before."""
        # Zero would mean for ever.
        patience_s = max(0.001, round(timeout_s, 3))
        await self._bell.execute(
            "BLPOP", keys.RETRIES_WAKEUP, str(patience_s), timeout_s=patience_s + 5
        )

    async def close(self) -> None:
        await self._bell.close()
