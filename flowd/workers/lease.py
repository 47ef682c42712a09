"""Keep this worker's lease, and say when it is gone."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable

from flowd.errors import LeaseLost, StoreError
from flowd.orchestrator.leases import LET_GO_AFTER_S, RENEW_EVERY_S
from flowd.store.tasks import Tasks


class Lease:
    """The right of one consumer to what it has claimed. `renewed` is awaited after each renewal."""

    def __init__(
        self, tasks: Tasks, consumer: str, renewed: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        self._tasks = tasks
        self._consumer = consumer
        self._renewed = renewed
        self._doubt = asyncio.Event()

    def doubt(self) -> None:
        """Renew at once: something happened that only happens to who has lost its lease."""
        self._doubt.set()

    async def keep(self) -> None:
        """Renew until cancelled. Raises LeaseLost when the lease was given away, or could not be
        renewed for so long that it soon will be: both mean to let go of everything at once."""
        while True:
            try:
                async with asyncio.timeout(LET_GO_AFTER_S):
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(RENEW_EVERY_S):
                            await self._doubt.wait()
                    self._doubt.clear()
                    await self._renew()
            except TimeoutError:
                raise LeaseLost(f"no renewal went through for {LET_GO_AFTER_S:.0f} s") from None
            if self._renewed is not None:
                # It must not cost the lease: what takes longer goes with the next.
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(RENEW_EVERY_S / 10):
                        await self._renewed()

    async def _renew(self) -> None:
        while True:
            try:
                if await self._tasks.renew_lease(self._consumer):
                    return
            except StoreError:
                await asyncio.sleep(RENEW_EVERY_S / 10)
            else:
                raise LeaseLost("it was given away while this worker did not renew it")
