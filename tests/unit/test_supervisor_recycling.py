"""How often a worker that comes to its limit again and again makes room for a fresh one."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

import pytest

from flowd.supervisor.lineup import Lineup
from flowd.supervisor.process_slot import State
from flowd.supervisor.recycling import RETRY_S, Recycling
from flowd.supervisor.restart_policy import BACKOFF_MAX_S, HEALTHY_AFTER_S

LIMITS = Lineup((), 0.0, tasks_max=1)


class Workers:
    """As a crew and its roll: who is asked to make room has a ready successor at once."""

    failure: str | None = None

    def __init__(self, *names: str) -> None:
        self.slots = [
            SimpleNamespace(
                role=SimpleNamespace(name=name),
                state=State.RUNNING,
                started_at=0.0,
                ready_at=0.0,
                watch=SimpleNamespace(stalled_s=0, stuck=0, done=1, memory_mb=1.0),
            )
            for name in names
        ]
        self.now = 0.0
        self.replaced_at: dict[str, list[float]] = {name: [] for name in names}

    def staying(self, _kind: object) -> list[Any]:
        return self.slots

    def is_over(self) -> bool:
        return True

    def add(self, slot: Any, role: Any, _reason: str, *, is_patient: bool) -> None:
        assert is_patient
        self.replaced_at[role.name].append(round(self.now, 1))
        slot.started_at = slot.ready_at = self.now

    def run(self, recycling: Recycling, until_s: float) -> None:
        while self.now < until_s:
            recycling.go_on(LIMITS, self.now)
            self.now += 0.05


def recycling_of(workers: Workers) -> Recycling:
    return Recycling(cast("Any", workers), cast("Any", workers))


def test_one_that_soon_comes_to_its_limit_again_is_kept_ever_longer() -> None:
    """It was replaced as fast as processes can be started."""
    workers = Workers("worker-1")
    workers.run(recycling_of(workers), 8.0)

    times = workers.replaced_at["worker-1"]
    pauses = [later - before for before, later in itertools.pairwise(times)]
    assert pauses[1:] == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 3.2], abs=0.11)


def test_one_that_has_served_for_long_is_replaced_at_once_again() -> None:
    workers = Workers("worker-1")
    recycling = recycling_of(workers)
    workers.run(recycling, 3.0)
    (slot,) = workers.slots
    slot.watch.done = 0
    workers.run(recycling, workers.now + HEALTHY_AFTER_S + BACKOFF_MAX_S)
    before = len(workers.replaced_at["worker-1"])

    slot.watch.done = 1
    workers.run(recycling, workers.now + 0.3)

    assert len(workers.replaced_at["worker-1"]) >= before + 2


def test_nobody_waits_because_another_has_to_rest() -> None:
    workers = Workers("worker-1", "worker-2")
    recycling = recycling_of(workers)
    workers.slots[1].watch.done = 0
    workers.run(recycling, 5.0)
    assert workers.replaced_at["worker-2"] == []

    workers.slots[1].watch.done = 1
    workers.run(recycling, 5.1)

    assert len(workers.replaced_at["worker-2"]) >= 1


def test_while_successors_do_not_become_ready_one_is_tried_now_and_then() -> None:
    """A fresh process each moment costs more than a worker that is beyond its limit."""
    workers = Workers("worker-1", "worker-2")
    workers.failure = "a new worker-1 did not become ready"
    recycling = recycling_of(workers)

    workers.run(recycling, RETRY_S - 1)
    assert sum(map(len, workers.replaced_at.values())) == 1
    workers.run(recycling, RETRY_S + 1)
    assert sum(map(len, workers.replaced_at.values())) == 2
