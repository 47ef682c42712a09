"""What the supervisor remembers of a child that died, hung or was replaced, and what it forgets."""

from __future__ import annotations

import signal
import time
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flowd.supervisor import crew as crews
from flowd.supervisor.crew import Crew
from flowd.supervisor.ending import QUICK_STOP_S, Ending
from flowd.supervisor.lineup import Lineup
from flowd.supervisor.process_slot import ProcessSlot, State
from flowd.supervisor.recoveries import AT_ONCE_MAX, Recoveries
from flowd.supervisor.recycling import Recycling
from flowd.supervisor.restart_policy import History
from flowd.supervisor.roles import Role, RoleKind
from flowd.supervisor.roll import Roll
from tests.conftest import Lines


class Process:
    """As a child: it hears signals and does nothing."""

    def __init__(self) -> None:
        self.pid = 1
        self.signals: list[int] = []
        self.patience: list[bool] = []
        self.vitals = SimpleNamespace(last_beat=1, be_patient=self.patience.append)

    def send(self, number: int) -> None:
        self.signals.append(number)


class Troop(Crew):
    """A crew whose children are forked by nobody; `forks` says of each whether it can be."""

    def __init__(self, *slots: ProcessSlot) -> None:
        super().__init__(
            (), cast("Any", None), close_in_child=lambda _: None, on_end=lambda *_: None
        )
        self.slots = list(slots)
        self.can_fork = True

    def start(self, slot: ProcessSlot) -> None:
        if self.can_fork:
            fill(slot)
        else:
            slot.state = State.BACKOFF


def role_of(kind: RoleKind = RoleKind.WORKER, name: str = "worker-1", **facts: Any) -> Role:
    return Role(name, kind, lambda _: None, **facts)


def fill(slot: ProcessSlot, now: float = 100.0) -> Process:
    process = Process()
    slot.fill(cast("Any", process), now)
    return process


def running(name: str = "worker-1", kind: RoleKind = RoleKind.WORKER) -> ProcessSlot:
    slot = ProcessSlot(role_of(kind, name))
    fill(slot)
    slot.state, slot.ready_at, slot.due_at = State.RUNNING, 100.0, None
    slot.history = History(was_ever_ready=True, deaths_in_a_row=3)
    return slot


def process_of(slot: ProcessSlot) -> Process:
    return cast("Process", slot.child)


def begin(roll: Roll, *slots: ProcessSlot) -> None:
    for slot in slots:
        roll.add(slot, slot.role, "the test")
    roll.go_on(200.0)


def fail(roll: Roll, successor: ProcessSlot) -> bool:
    """Its successor ends before it was ready."""
    successor.last_exit = "ended with exit code 1"
    return roll.has_lost(successor)


# Replacing one by one.


def test_a_roll_that_begins_forgets_why_the_one_before_was_broken_off(lines: Lines) -> None:
    slot = running()
    troop = Troop(slot)
    roll = Roll(troop)
    begin(roll, slot)
    assert fail(roll, troop.slots[1])
    assert "did not become ready" in (roll.failure or "")
    troop.remove(troop.slots[1])

    begin(roll, slot)

    assert roll.failure is None
    about = {"child": "worker-1", "reason": "the test"}
    assert lines.of("roll.began") == [("info", about)] * 2
    about["reason"] = "ended with exit code 1"
    assert lines.of("roll.failed") == [("error", about)]


def test_who_waits_for_his_turn_behind_a_successor_that_fails_is_not_replaced() -> None:
    first, second = running(), running("worker-2")
    troop = Troop(first, second)
    roll = Roll(troop)
    begin(roll, first, second)

    assert fail(roll, troop.slots[1])

    assert (roll.names, roll.is_over()) == ([], True)


def test_a_successor_goes_on_counting_the_restarts_of_its_slot() -> None:
    slot = running()
    slot.restarts = 7
    troop = Troop(slot)
    begin(Roll(troop), slot)
    assert troop.slots[1].restarts == 7


def test_an_old_child_that_dies_before_its_successor_is_ready_leaves_it_its_history() -> None:
    """Else one that dies again and again would begin with the first pause at each reload."""
    slot = running()
    troop = Troop(slot)
    roll = Roll(troop)
    begin(roll, slot)

    assert roll.has_lost(slot)

    assert troop.slots[1].history == slot.history != History()


def test_a_successor_that_follows_nobody_any_more_is_a_child_like_others() -> None:
    """The old child had died: given up, its successor would have left no worker at all."""
    slot = running()
    troop = Troop(slot)
    roll = Roll(troop)
    begin(roll, slot)
    roll.has_lost(slot)
    troop.remove(slot)

    assert not fail(roll, troop.slots[0])
    assert (roll.failure, roll.is_over()) == (None, True)


def test_one_that_was_given_up_may_try_again_when_it_is_to_be_replaced() -> None:
    slot = ProcessSlot(role_of(), state=State.FATAL, history=History(failed_starts=2))
    begin(Roll(Troop(slot)), slot)
    assert (slot.state, slot.history) == (State.STOPPED, History())


def test_one_that_goes_by_itself_gets_no_successor() -> None:
    slot = running()
    slot.is_leaving = True
    troop = Troop(slot)
    begin(Roll(troop), slot)
    assert troop.slots == [slot]


# A slot and its children.


def test_a_child_is_judged_by_nothing_that_the_one_before_did() -> None:
    slot = running()
    slot.hung_s, slot.suspects, slot.is_patient = 5.0, ("1-0",), True

    fill(slot)

    assert (slot.hung_s, slot.suspects, slot.is_patient) == (None, (), False)


@pytest.mark.parametrize(("was_ever_ready", "due_at"), [(True, None), (False, 107.0)])
def test_only_a_start_that_never_went_well_has_an_end(
    was_ever_ready: bool, due_at: float | None
) -> None:
    slot = ProcessSlot(role_of(start_limit_s=7.0), history=History(was_ever_ready=was_ever_ready))
    fill(slot)
    assert slot.due_at == due_at


def test_a_child_that_hangs_is_said_to_hang_once() -> None:
    slot = ProcessSlot(role_of(has_pulse=True, start_limit_s=7.0))
    fill(slot)
    assert slot.watch is not None
    slot.watch.silent_s = 60.0
    assert slot.is_hung(5.0)
    slot.hung_s = 60.0
    assert not slot.is_hung(5.0)


def test_what_had_all_the_time_it_needs_is_told_so_and_told_again_when_it_has_not() -> None:
    slot = running()
    troop, process = Troop(slot), process_of(slot)

    troop.ask_to_stop(slot, None)
    troop.ask_to_stop(slot, None)
    assert (process.signals, process.patience) == ([signal.SIGTERM], [True])

    troop.ask_to_stop(slot, 200.0)
    troop.ask_to_stop(slot, 300.0)
    assert (process.signals, process.patience) == ([signal.SIGTERM] * 2, [True, False])
    assert slot.due_at == 200.0


def test_a_machine_without_room_for_a_process_is_asked_again(
    lines: Lines, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_arguments: Any) -> None:
        raise OSError("no more processes")

    slot = ProcessSlot(role_of())
    monkeypatch.setattr(crews, "Child", refuse)

    Crew.start(Troop(slot), slot)

    assert (slot.state, slot.child) == (State.BACKOFF, None)
    assert slot.due_at is not None and slot.due_at > time.monotonic()
    about = {"child": "worker-1", "error": "no more processes"}
    assert lines.of("child.fork_failed") == [("error", about)]


@pytest.mark.parametrize("state", [State.STARTING, State.STOPPING])
def test_only_a_child_that_works_is_replaced_for_a_limit(state: State) -> None:
    slot = running()
    troop = Troop(slot)
    slot.watch = cast("Any", SimpleNamespace(stalled_s=0, stuck=1, done=0, memory_mb=1.0))
    slot.state = state
    roll = Roll(troop)
    recycling = Recycling(troop, roll)

    recycling.go_on(Lineup((), 0.0), 200.0)
    assert roll.is_over()

    slot.state = State.RUNNING
    recycling.go_on(Lineup((), 0.0), 200.0)
    assert not roll.is_over()


# What the dead have held.


def recoveries_of(troop: Troop, ending: Ending) -> Recoveries:
    recoveries = Recoveries(lambda *_: None, troop, ending)
    for _ in range(AT_ONCE_MAX + 1):
        recoveries.add(running(), 1, was_asked=False)
    return recoveries


def test_so_many_of_the_dead_are_recovered_at_once_and_the_others_after_them() -> None:
    troop = Troop()
    recoveries = recoveries_of(troop, Ending(troop))

    recoveries.start()
    recoveries.start()
    assert (len(troop.slots), bool(recoveries)) == (AT_ONCE_MAX, True)

    troop.remove(troop.slots[0])
    recoveries.start()
    assert (len(troop.slots), bool(recoveries)) == (AT_ONCE_MAX, False)


def test_a_recovery_that_cannot_be_forked_leaves_no_slot_behind() -> None:
    troop = Troop()
    troop.can_fork = False
    recoveries = recoveries_of(troop, Ending(troop))

    recoveries.start()

    assert (troop.slots, bool(recoveries)) == ([], False)


def test_a_quick_end_that_is_overdue_waits_for_no_recovery() -> None:
    troop = Troop()
    ending = Ending(troop)
    recoveries = recoveries_of(troop, ending)
    ending.hurry(time.monotonic() - 2 * QUICK_STOP_S)

    recoveries.start()

    assert (troop.slots, bool(recoveries)) == ([], False)


# The end.


def test_who_was_to_start_again_does_not_when_the_end_begins() -> None:
    slot = running()
    slot.schedule_restart(100.0, 0.0)
    Ending(Troop(slot)).begin(100.0, 60.0)
    assert (slot.state, slot.due_at) == (State.STOPPED, None)


def test_in_a_hurry_the_server_has_less_time_and_the_others_none() -> None:
    worker, server = running(), running("server", RoleKind.SERVER)
    troop = Troop(worker, server)
    ending = Ending(troop)
    server.begin_stop(500.0)

    assert ending.hurry(100.0)
    assert not ending.hurry(100.0)

    assert process_of(worker).signals == [signal.SIGKILL]
    assert (process_of(server).signals, server.due_at) == ([], 100.0 + QUICK_STOP_S)
