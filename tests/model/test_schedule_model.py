"""The model of schedules: schedulers that come and go, and a clock that jumps."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.schedule_machine import ScheduleMachine

BRIEF = settings(
    max_examples=40,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
)


def test_each_time_of_a_schedule_has_the_fate_the_reference_says(server):
    run_state_machine_as_test(lambda: ScheduleMachine(server), settings=BRIEF)
