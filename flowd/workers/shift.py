"""A shift: what a worker does under one consumer name, from its lease to its drain.

A node's way through it: the intake receives and prepares its entry, a slot handles it, and
`_complete_and_claim` commits what has ended while it takes new entries in the same call. Whatever
ends while such a call is under way travels with the next, so batches grow with the load and a lone
chain never waits for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Any, Final

from flowd.backoff import growing_pauses
from flowd.config import Settings
from flowd.errors import (
    FlowdError,
    MissingGroup,
    MissingScript,
    StoreError,
    StoreFull,
    StoreUnavailable,
    WrongType,
)
from flowd.handlers.context import Resources
from flowd.handlers.registry import Registry
from flowd.log import get_logger
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.recovery import ensure_groups
from flowd.pulse import Pulse
from flowd.store import Store
from flowd.store.endings import (
    ENDED,
    Advance,
    Completion,
    Ending,
    Single,
)
from flowd.store.tasks import Claim, Exchange
from flowd.workers.intake import Intake
from flowd.workers.node_logs import NodeLogs
from flowd.workers.settlement import Settlement
from flowd.workers.slots import Slots
from flowd.workers.tally import Tally

log = get_logger(__name__)

# More entries than this in one call gain nothing and make the server hold its breath.
READ_MAX: Final = 64
DAMAGE_MET_MAX: Final = 3
# At the end of a drain, for what was said by calls that are cut off.
LAST_LINES_S: Final = 1.0


@dataclass(frozen=True, slots=True)
class Equipment:
    """What the shifts of one worker process share."""

    settings: Settings
    store: Store
    plans: Plans
    registry: Registry
    resources: Resources
    threads: Executor
    pulse: Pulse
    tally: Tally
    logs: NodeLogs


class Shift:
    """`work` until drained; `close` lets go of what still runs.

    `on_stale` hears of a node that was taken away, which happens when the lease is gone.
    """

    def __init__(self, equipment: Equipment, consumer: str, on_stale: Callable[[], None]) -> None:
        settings, store, plans = equipment.settings, equipment.store, equipment.plans
        self._store = store
        self._plans = plans
        self._pulse = equipment.pulse
        self._consumer = consumer
        self._slots_max = settings.workers.concurrency
        self._wake = asyncio.Event()
        equipment.logs.on_due = self._wake.set
        self._session = store.tasks.open_session(
            consumer, settings.workers.queues, logs=equipment.logs
        )
        self._intake = Intake(store, plans, equipment.registry, consumer, settings.workers.queues)
        self._settlement = Settlement(store, plans, self._intake, equipment.tally, on_stale)
        self._slots = Slots(
            settings,
            equipment.resources,
            equipment.threads,
            consumer,
            equipment.pulse,
            on_end=self._end,
            on_claim_due=self._make_claims_due,
            on_room=self._wake.set,
        )
        self._is_draining = False
        self._drain_by: float | None = None
        self._limit: asyncio.Timeout | None = None
        self._asked_at_s = time.monotonic()
        self._is_claim_due = False
        self._completions: list[Advance] = []
        self._failures: list[Single] = []
        self._read_window = 1
        self._is_hungry = True
        self._doorbell: asyncio.Task[None] | None = None
        self._has_lost_reply = False
        self._is_redis_full = False
        self._damage_met = 0
        self._is_redis_away = False

    def drain(self, within_s: float | None) -> None:
        """Take and start nothing from now on, and end what runs within this time, if it is one.

        What had no limit may be given one; one that was given stays.
        """
        if self._drain_by is None and within_s is not None:
            self._drain_by = asyncio.get_running_loop().time() + within_s
            if self._limit is not None:
                self._limit.reschedule(self._drain_by)
        self._is_draining = True
        self._wake.set()

    def stalled_s(self) -> float:
        """For how long it has asked for no work although it has room and Redis could give it some.

        To be called every few seconds: what kept it from asking is seen only then.
        """
        now_s = time.monotonic()
        if (
            self._is_draining
            or self._is_redis_full
            or self._is_redis_away
            or self._slots.taken >= self._slots_max
        ):
            self._asked_at_s = now_s
        return now_s - self._asked_at_s

    def note_room(self, *, is_full: bool) -> None:
        """Take nothing new while Redis is full: what ends may be written all the same, and what
        begins would add to it. A read that waits already may bring one more."""
        if is_full == self._is_redis_full:
            return
        self._is_redis_full = is_full
        if is_full:
            log.error("reads.paused", consumer=self._consumer)
        else:
            log.warning("reads.resumed", consumer=self._consumer)
            self._is_hungry = True
            self._wake.set()

    async def work(self) -> None:
        """Run nodes until `drain` is called, then end what runs within its limit."""
        try:
            async with asyncio.timeout_at(self._drain_by) as self._limit:
                while not self._is_draining:
                    await self._turn()
                await self._stop_listening()
                while self._slots or self._completions or self._failures:
                    await self._turn()
        except TimeoutError:
            # What runs on is let go by `close`.
            pass
        finally:
            self._limit = None

    async def close(self) -> bool:
        """Let go of everything; True when a handler runs on that nothing can stop."""
        await self._stop_listening()
        is_stuck = await self._slots.cancel_all()
        self._settlement.break_off()
        with contextlib.suppress(StoreError, TimeoutError):
            async with asyncio.timeout(LAST_LINES_S):
                await self._session.send_logs()
        await self._session.close()
        return is_stuck

    async def _turn(self) -> None:
        # Before anything is awaited: a drain that comes meanwhile must not be forgotten.
        self._wake.clear()
        try:
            if self._has_lost_reply:
                await self._look_for_entries()
            if not self._is_draining:
                for prepared in await self._intake.prepare():
                    self._slots.start(prepared)
            if not self._has_news():
                self._listen()
                await self._wake.wait()
            if self._has_news():
                await self._complete_and_claim()
        except (StoreUnavailable, StoreFull, MissingScript) as error:
            # Scripts that were forgotten are loaded on the way, unless that happens twice at once.
            await self._reconnect(error)
        except WrongType as error:
            # The stream: the scheduler sets it aside. What is still there then is our own defect.
            self._damage_met += 1
            if self._damage_met > DAMAGE_MET_MAX:
                raise
            await self._reconnect(error)

    def _has_news(self) -> bool:
        if self._completions or self._failures or self._is_claim_due or self._session.is_due:
            return True
        return self._is_hungry and self._free_slots() > 0

    def _free_slots(self) -> int:
        """Slots a read may fill."""
        if self._is_draining or self._is_redis_full:
            return 0
        taken = self._slots.taken + self._intake.arrived_count
        return self._slots_max - taken - (self._doorbell is not None)

    # The call that is the engine's heartbeat, and what follows from its answer.

    async def _complete_and_claim(self) -> None:
        """Commit what has ended, record what runs on, and take new entries: one call.

        What has ended stays in its list until its outcome is known. After an error that is not:
        sent again, the fence refuses what was done.
        """
        room = max(0, min(READ_MAX, self._free_slots()))
        claims = self._slots.unclaimed() if self._is_claim_due else []
        self._is_claim_due = False
        if len(self._completions) > 1:
            self._session.sort(self._completions)
        exchange = await self._session.complete_and_claim(
            tuple(self._completions),
            tuple(self._failures),
            claims,
            min(self._read_window, room),
            room,
        )
        self._damage_met = 0
        if exchange.asked:
            self._take_entries(exchange)
        if exchange.completed:
            self._settle(self._completions, exchange.completed)
        if exchange.failed:
            self._settle(self._failures, exchange.failed)
        if claims:
            self._settle_claims(claims, exchange.claimed)
        self._pulse.note_work(len(self._slots), _count_ended(exchange))
        if exchange.is_group_missing:
            await ensure_groups(self._store, self._plans, self._session.queues, was_there=True)

    def _take_entries(self, exchange: Exchange) -> None:
        self._is_hungry = len(exchange.entries) >= exchange.asked
        # Doubling leaves the first of a wide fan to the other workers.
        self._read_window = min(2 * self._read_window, READ_MAX) if self._is_hungry else 1
        self._asked_at_s = time.monotonic()
        self._intake.receive(exchange.entries, exchange.halted_ms)

    def _settle(self, waiting: list[Any], outcomes: Sequence[str]) -> None:
        """Take the endings whose outcomes these are from the list they waited in."""
        endings = waiting[: len(outcomes)]
        del waiting[: len(outcomes)]
        self._settlement.settle(endings, outcomes)

    def _settle_claims(self, claims: Sequence[Claim], outcomes: list[str]) -> None:
        for claim, outcome in zip(claims, outcomes, strict=True):
            name = claim.entry.name
            if outcome == "claimed":
                self._slots.note_claimed(name)
            elif self._slots.cancel(name):
                self._intake.release(name)
                self._settlement.settle_oddity(claim.entry, outcome)

    def _end(self, ending: Ending) -> None:
        """Put an ending where the next call finds it."""
        if isinstance(ending, Completion) or not isinstance(ending, Single):
            self._completions.append(ending)
        else:
            self._failures.append(ending)
        self._wake.set()

    def _make_claims_due(self) -> None:
        self._is_claim_due = bool(self._slots)
        self._wake.set()

    # The doorbell: a blocked read on a connection of its own, while there is nothing else to do.

    def _listen(self) -> None:
        if self._doorbell is None and not self._is_hungry and self._free_slots() > 0:
            self._doorbell = asyncio.create_task(self._answer_doorbell())

    async def _answer_doorbell(self) -> None:
        try:
            entries = await self._session.wait_for_entry()
            self._asked_at_s = time.monotonic()
            # Several queues may each give one at once; only one slot was kept free for them.
            room = 1 + self._free_slots()
            self._intake.receive(entries[:room])
            self._is_hungry = bool(entries)
            for surplus in entries[room:]:
                await self._store.tasks.requeue_entry(surplus.name, self._consumer)
        except StoreError as error:
            # The next call may meet the same trouble, and deals with it. If it does not, there may
            # be an entry that was delivered in a reply nobody has heard.
            self._has_lost_reply = isinstance(error, StoreUnavailable)
            self._is_hungry = True
        finally:
            self._doorbell = None
            self._wake.set()

    async def _stop_listening(self) -> None:
        """An entry that arrives while the line is cut is handed back when the shift ends."""
        if self._doorbell is not None:
            self._doorbell.cancel()
            await asyncio.gather(self._doorbell, return_exceptions=True)

    async def _look_for_entries(self) -> None:
        """Find what was delivered in a reply nobody has heard."""
        # Where the group is gone nobody holds anything; the next call makes it anew.
        with contextlib.suppress(MissingGroup):
            self._intake.receive(await self._session.own_entries())
        self._has_lost_reply = False

    async def _reconnect(self, error: FlowdError) -> None:
        """Wait until Redis answers, then look for entries whose delivery was lost on the way.

        While draining one try is enough: the drain has its own end, and comes back until then.
        """
        if not self._is_redis_away:
            log.error("redis.lost", reason=str(error))
        self._is_redis_away = True
        for pause_s in growing_pauses():
            try:
                await ensure_groups(self._store, self._plans, self._session.queues, was_there=True)
                self._intake.receive(await self._session.own_entries())
                log.warning("redis.reconnected")
                self._is_redis_away = False
                self._make_claims_due()
                return
            except StoreError:
                await asyncio.sleep(pause_s)
            if self._is_draining:
                return


def _count_ended(exchange: Exchange) -> int:
    outcomes = (exchange.completed, exchange.failed)
    return sum(each.count(ended) for each in outcomes for ended in ENDED)
