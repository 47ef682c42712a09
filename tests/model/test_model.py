"""The model, for as long as a test may take."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.machine import Machine

BRIEF = settings(
    max_examples=30,
    stateful_step_count=60,
    suppress_health_check=list(HealthCheck),
)


def test_the_store_does_what_the_reference_says(server):
    run_state_machine_as_test(lambda: Machine(server), settings=BRIEF)
