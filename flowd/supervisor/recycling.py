"""Replace workers that have reached a limit, one at a time, each after what it runs has ended."""

from __future__ import annotations

from typing import NamedTuple

from flowd.log import get_logger
from flowd.supervisor.child import RoleKind
from flowd.supervisor.crew import Crew
from flowd.supervisor.lineup import Lineup
from flowd.supervisor.process_slot import ProcessSlot, State
from flowd.supervisor.restart_policy import History, after_death
from flowd.supervisor.roll import Roll

log = get_logger(__name__)

# A worker that could not be replaced by a fresh one is left alone for this long.
RETRY_S = 30.0
# A worker that has room asks every few seconds: one that has not for this long never will.
STALLED_S = 15


class _Cause(NamedTuple):
    reason: str
    # Whether it can be trusted to end when what it runs has ended.
    is_patient: bool = True


class Recycling:
    """`go_on` does what is due; it may be called at any time."""

    def __init__(self, crew: Crew, roll: Roll) -> None:
        self._crew = crew
        self._roll = roll
        self._retry_at = 0.0
        # By name: how soon it came to its limit the last times, and when it may be replaced again.
        self._rests: dict[str, tuple[History, float]] = {}
        # Why a limit is not kept to; None where all are.
        self.hindrance: str | None = None

    def go_on(self, lineup: Lineup, now: float) -> None:
        """Ask one worker that has reached a limit to make room for a fresh one."""
        if now < self._retry_at or not self._roll.is_over():
            return
        # The longest in service first, so that each has its turn.
        for slot in sorted(self._crew.staying(RoleKind.WORKER), key=lambda slot: slot.started_at):
            cause = self._cause(slot, lineup)
            if cause and slot.state is State.RUNNING and self._may_go(slot, now):
                self._retry_at = now + (RETRY_S if self._roll.failure else 0)
                self._roll.add(slot, slot.role, cause.reason, is_patient=cause.is_patient)
                return

    def _cause(self, slot: ProcessSlot, lineup: Lineup) -> _Cause | None:
        watch = slot.watch
        if watch is None:
            return None
        if watch.stalled_s >= STALLED_S:
            text = f"it had room and asked for no work for {watch.stalled_s} s"
            return _Cause(text, is_patient=False)
        if watch.stuck:
            return _Cause(f"{watch.stuck} of its handlers run on past their end")
        if lineup.tasks_max and watch.done >= lineup.tasks_max:
            return _Cause(f"it had done {watch.done} nodes")
        is_heavy = 0 < lineup.memory_max_mb < watch.memory_mb
        if is_heavy and self._is_possible(watch.own_weight_mb, lineup.memory_max_mb):
            return _Cause(f"it had grown to {watch.memory_mb:.0f} MB")
        return None

    def _is_possible(self, own_weight_mb: float, memory_max_mb: int) -> bool:
        """Whether a fresh worker would be below the limit; the other is said once."""
        if own_weight_mb <= memory_max_mb:
            return True
        hindrance = (
            f"workers.memory_max_mb is {memory_max_mb}, and a fresh worker uses "
            f"{own_weight_mb:.0f} MB: no worker is replaced for its memory"
        )
        if self.hindrance is None:
            log.warning("recycling.impossible", reason=hindrance)
        self.hindrance = hindrance
        return False

    def _may_go(self, slot: ProcessSlot, now: float) -> bool:
        """Whether it has rested; if so its next rest is longer when it came to its limit soon."""
        history, rested_at = self._rests.get(slot.role.name, (History(was_ever_ready=True), 0.0))
        if now < rested_at:
            return False
        served_s = now - (slot.ready_at or now)
        history, pause_s = after_death(history, ready_for_s=served_s, jitter=0.0)
        self._rests[slot.role.name] = history, now + (pause_s or 0.0)
        return True
