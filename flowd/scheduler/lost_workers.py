"""Requeue the nodes of workers that are dead: their lease ran out, or their process is gone."""

from __future__ import annotations

from flowd.errors import MissingGroup
from flowd.orchestrator.leases import LEASE_S, LeaseWatch
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import ensure_groups, local_owners, recover_worker
from flowd.scheduler.duty import Duty
from flowd.store import Store


class RecoverExpired(Duty):
    """Workers whose heartbeat stands still; where their group is gone, it is made anew."""

    name = "expired leases"

    def __init__(self, store: Store, plans: Plans, interval_s: float) -> None:
        self.every_s = 0.9 * interval_s
        self._store = store
        self._plans = plans
        self._leases = LeaseWatch()
        self._has_group = False

    async def run(self, now_s: float) -> None:
        try:
            for consumer in self._leases.expired(await self._store.tasks.leases(), now_s):
                cause = f"{consumer} has not renewed its lease for {LEASE_S:.0f} s"
                await recover_worker(self._store, self._plans, consumer, cause, is_blamed=True)
            self._has_group = True
        except MissingGroup:
            await ensure_groups(self._store, self._plans, was_there=self._has_group)

    def pause(self) -> None:
        self._leases.pause()


class RecoverGone(Duty):
    """What died on this machine with nobody to tell: a killed supervisor took it along.

    At the second sight only, so that a supervisor that lives can say first how it died.
    """

    name = "gone processes"

    def __init__(self, store: Store, plans: Plans, interval_s: float) -> None:
        self.every_s = 0.9 * interval_s
        self._store = store
        self._plans = plans
        self._gone: set[str] = set()

    async def run(self, _now_s: float) -> None:
        gone = {
            consumer: owner
            for consumer, owner in await local_owners(self._store)
            if owner.is_gone()
        }
        for consumer in self._gone & gone.keys():
            cause = f"{consumer} (pid {gone[consumer].pid}) died"
            await recover_worker(self._store, self._plans, consumer, cause, is_blamed=True)
        self._gone = set(gone)
