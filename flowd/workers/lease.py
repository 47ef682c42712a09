"""Keep this worker's lease, and say when it is gone."""

from __future__ import annotations

import asyncio

from flowd.errors import LeaseLost, StoreError
from flowd.orchestrator.leases import LET_GO_AFTER_S, RENEW_EVERY_S
from flowd.store.tasks import Tasks


async def keep_lease(tasks: Tasks, consumer: str) -> None:
    """Renew until cancelled. Raises LeaseLost when the lease was given away, or could not be
    renewed for so long that it soon will be: both mean to let go of everything at once."""
    while True:
        try:
            async with asyncio.timeout(LET_GO_AFTER_S):
                await asyncio.sleep(RENEW_EVERY_S)
                await _renew(tasks, consumer)
        except TimeoutError:
            raise LeaseLost(f"no renewal went through for {LET_GO_AFTER_S:.0f} s") from None


async def _renew(tasks: Tasks, consumer: str) -> None:
    while True:
        try:
            if await tasks.renew_lease(consumer):
                return
        except StoreError:
            await asyncio.sleep(RENEW_EVERY_S / 10)
        else:
            raise LeaseLost("it was given away while this worker did not renew it")
