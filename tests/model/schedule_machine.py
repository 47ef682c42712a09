"""Schedules on a real server beside a reference: schedulers that are slow, die and begin anew.

The clock is the machine's own. A scheduler may go on with what it has seen a long time ago, beside
others, and be broken off; whatever it does, each time has one fate.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from functools import partial

from hypothesis import strategies as st
from hypothesis.stateful import initialize, invariant, precondition, rule

from flowd.errors import ScheduleBusy
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.schedules import Firings, hold_schedule, put_schedule
from flowd.store.callbacks import CallbackState
from flowd.store.redis import keys
from flowd.store.schedules import DueSchedule
from flowd.workflow.schedule import ScheduleDefinition
from flowd.workflow.timetable import CATCH_UP_MAX, LATE_MS
from tests.model.machine import EngineMachine
from tests.private_server import PrivateServer
from tests.store.schedules import MINUTE_MS, NAME, Scheduled, save

EVERY_MS = 10 * MINUTE_MS
WINDOW_S = 3600
OVERLAPS = ("skip", "queue", "replace", "allow")
CATCH_UPS = ("none", "last", "all")


@dataclass
class Reference:
    """What became of each time, and how often: a clock that is behind may come to one again."""

    overlap: str
    catch_up: str
    next_ms: int | None
    ran: set[int] = field(default_factory=set)
    counts: Counter[str] = field(default_factory=Counter)
    queued_ms: int | None = None
    running: set[int] = field(default_factory=set)

    def look(self, now_ms: int) -> None:
        """What a scheduler does that looks at this time."""
        if self.queued_ms is not None and not self.running:
            self.run(self.queued_ms)
            self.queued_ms = None
            return
        if self.queued_ms is not None and self.overlap == "replace":
            self.running.clear()
        if self.next_ms is None:
            return
        due = list(range(self.next_ms, now_ms + 1, EVERY_MS))
        window_ms = LATE_MS if self.catch_up == "none" else 1000 * WINDOW_S
        kept = due[-CATCH_UP_MAX:] if self.catch_up == "all" else due[-1:]
        kept = [one for one in kept if now_ms - one <= window_ms]
        for one in due[: len(due) - len(kept)]:
            self.counts["missed"] += 1
            self.next_ms = one + EVERY_MS
        if not kept:
            return
        is_late = len(kept) > 1 or now_ms - kept[0] > LATE_MS
        is_free = not self.running or (self.overlap == "allow" and not is_late)
        is_free = is_free or kept[0] in self.ran
        if not is_free and is_late:
            return
        self.next_ms = kept[0] + EVERY_MS
        if is_free:
            self.run(kept[0])
        elif self.overlap == "skip" or (self.overlap == "queue" and self.queued_ms is not None):
            self.counts["skipped"] += 1
        else:
            self.drop_queued()
            self.queued_ms = kept[0]
            if self.overlap == "replace":
                self.running.clear()

    def drop_queued(self) -> None:
        if self.queued_ms is not None:
            self.counts["skipped"] += 1
            self.queued_ms = None

    def run(self, time_ms: int) -> None:
        if time_ms not in self.ran:
            self.counts["fired"] += 1
            self.ran.add(time_ms)
            self.running.add(time_ms)


class ScheduleMachine(EngineMachine):
    def __init__(self, server: PrivateServer) -> None:
        super().__init__(server)
        self.run(save(self.store))
        self.firings = Firings(self.store, Plans(self.store))
        self.seen: list[tuple[DueSchedule, int]] = []
        self.changes = 0
        self.forced: set[str] = set()
        self.told: Counter[str] = Counter()

    @initialize(
        overlap=st.sampled_from(OVERLAPS), catch_up=st.sampled_from(CATCH_UPS), late=st.booleans()
    )
    def make(self, overlap: str, catch_up: str, late: bool) -> None:
        self._put(overlap, catch_up)
        row = self.run(self.store.schedules.row(NAME))
        self.now_ms = self.first_ms = row.next_ms or 0
        self.reference = Reference(overlap, catch_up, row.next_ms)
        self.scheduled = Scheduled(NAME, self.store, self.redis, self.firings, self.first_ms)
        if late:
            self.now_ms += 7 * MINUTE_MS

    def _put(self, overlap: str, catch_up: str) -> None:
        self.changes += 1
        said = {"workflow": "report", "every_s": EVERY_MS // 1000, "overlap": overlap}
        said |= {"catch_up": catch_up, "catch_up_window_s": WINDOW_S, "input": {"n": self.changes}}
        said |= {"callback": {"url": "https://example.com/flowd"}}
        self.run(put_schedule(self.store, NAME, ScheduleDefinition.model_validate(said)))

    @rule(minutes=st.one_of(st.integers(-30, 30), st.integers(1, 300), st.just(10)))
    def pass_time(self, minutes: int) -> None:
        self.now_ms += minutes * MINUTE_MS

    @rule(is_new=st.booleans())
    def look(self, is_new: bool) -> None:
        """A scheduler looks, perhaps one that has just begun."""
        if is_new:
            self.firings = Firings(self.store, Plans(self.store))
        self.run(self.firings.attend(self.run(self.scheduled.seen()), self.now_ms))
        self.reference.look(self.now_ms)

    @rule()
    def see(self) -> None:
        """One looks, and is frozen."""
        self.seen.append((self.run(self.scheduled.seen()), self.now_ms))

    @precondition(lambda self: self.seen)
    @rule(data=st.data())
    def thaw(self, data: st.DataObject) -> None:
        """It goes on, by its time of then; of use only if nobody else did anything since."""
        self._go_on(*data.draw(st.sampled_from(self.seen)))

    def _go_on(self, seen: DueSchedule, then_ms: int) -> None:
        is_current = seen == self.run(self.scheduled.seen())
        self.run(self.firings.attend(seen, then_ms))
        if is_current:
            self.reference.look(then_ms)

    @rule(minutes=st.integers(1, 60))
    def overtake(self, minutes: int) -> None:
        """One looks and is frozen, another one looks later, and the first goes on."""
        self.see()
        self.pass_time(minutes)
        self.look(is_new=True)
        self._go_on(*self.seen.pop())

    @rule(is_heard=st.booleans(), is_late=st.booleans())
    def tell(self, is_heard: bool, is_late: bool) -> None:
        """Whoever is to know is called about what it was not told of yet, and more may come to that
        until it answers."""
        callbacks = self.store.callbacks
        due, _ = self.run(callbacks.claim(9, repeat_after_ms=0))
        untold = self.run(callbacks.untold(NAME))
        assert bool(due) == bool(untold.missed + untold.skipped)
        if is_late:
            self.pass_time(10)
            self.look(is_new=False)
        for one in due if is_heard else ():
            settle = partial(callbacks.settle, one, CallbackState.DELIVERED, told=untold)
            # The second time for a reply that was lost.
            assert [self.run(settle()) for _ in "ab"] == ["settled", "stale"]
            self.told.update(missed=untold.missed, skipped=untold.skipped)

    @precondition(lambda self: self.reference.running)
    @rule(data=st.data(), is_silent=st.booleans())
    def end(self, data: st.DataObject, is_silent: bool) -> None:
        """An execution ends, or is gone without a word."""
        time_ms = data.draw(st.sampled_from(sorted(self.reference.running)))
        if is_silent:
            self.redis.set(keys.status(self.scheduled.id_at(time_ms)), "COMPLETED")
        else:
            self.run(self.scheduled.end(time_ms))
        self.reference.running.discard(time_ms)

    @rule(overlap=st.sampled_from(OVERLAPS), catch_up=st.sampled_from(CATCH_UPS))
    def change(self, overlap: str, catch_up: str) -> None:
        self._put(overlap, catch_up)
        self.reference.overlap, self.reference.catch_up = overlap, catch_up
        self.reference.drop_queued()
        self._take_over_next()

    @rule()
    def pause_and_resume(self) -> None:
        for is_paused in (True, False):
            self.run(hold_schedule(self.store, NAME, is_paused=is_paused))
        self.reference.drop_queued()
        self._take_over_next()

    def _take_over_next(self) -> None:
        """What is behind the server's clock only: this machine's is ahead of it."""
        self.reference.next_ms = self.run(self.store.schedules.row(NAME)).next_ms

    @rule(is_forced=st.booleans())
    def run_by_hand(self, is_forced: bool) -> None:
        reference = self.reference
        is_free = is_forced or not reference.running or reference.overlap == "allow"
        self.now_ms += 1
        at_ms = self.now_ms + (self.now_ms % 1000 == 0)
        try:
            ran = self.run(self.firings.run_by_hand(NAME, at_ms, is_forced=is_forced))
        except ScheduleBusy:
            assert not is_free
            assert reference.overlap == "skip" or reference.queued_ms is not None
            return
        if is_free:
            assert not ran.is_queued
            reference.run(at_ms)
            return
        assert ran.is_queued
        reference.drop_queued()
        reference.queued_ms = at_ms
        if reference.overlap == "replace":
            reference.running.clear()

    @invariant()
    def each_time_has_its_fate(self) -> None:
        if not hasattr(self, "reference"):
            return
        reference, row = self.reference, self.run(self.store.schedules.row(NAME))
        assert (row.next_ms, row.queued_ms) == (reference.next_ms, reference.queued_ms)
        counts = {"fired": row.fired, "missed": row.missed, "skipped": row.skipped}
        assert counts == {word: reference.counts[word] for word in counts}
        made = sorted(reference.ran)
        states = [keys.status(self.scheduled.id_at(one)) for one in made]
        statuses = self.redis.mget(states) if states else []
        assert None not in statuses
        live = {one for one, status in zip(made, statuses, strict=True) if status == "RUNNING"}
        assert self.redis.zcard(keys.EXECUTIONS) == len(made)
        assert live == reference.running

    @invariant()
    def each_time_without_an_execution_is_told_once(self) -> None:
        if not hasattr(self, "reference"):
            return
        untold, counts = self.run(self.store.callbacks.untold(NAME)), self.reference.counts
        for word in ("missed", "skipped"):
            assert self.told[word] + getattr(untold, word) == counts[word]

    @invariant()
    def whoever_has_not_ended_holds_a_place_and_is_looked_at(self) -> None:
        if not hasattr(self, "reference"):
            return
        held = {self.scheduled.id_at(one) for one in self.reference.running}
        assert held <= self.scheduled.holders()
        look_ms = self.scheduled.look_ms()
        if self.reference.next_ms is not None:
            assert look_ms is not None and look_ms <= max(
                self.reference.next_ms, self.run(self.store.schedules.now_ms()) + 60_000
            )
