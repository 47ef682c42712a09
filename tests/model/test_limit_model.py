"""The model of limits and queues: who holds a place, who is next, and who may take what."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.limit_machine import QUEUE_STEP_MS, LimitMachine

BRIEF = settings(
    max_examples=20,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
)


def test_places_and_queues_are_at_every_step_as_the_reference_says(server, monkeypatch):
    monkeypatch.setattr("flowd.store.limits.QUEUE_STEP_MS", QUEUE_STEP_MS)
    run_state_machine_as_test(lambda: LimitMachine(server), settings=BRIEF)
