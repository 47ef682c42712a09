"""The model of a map, and what it is worth: scripts broken on purpose that it has to notice."""

from __future__ import annotations

from hypothesis import HealthCheck, Phase, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.map_machine import MapMachine

BRIEF = settings(
    max_examples=20,
    stateful_step_count=30,
    suppress_health_check=list(HealthCheck),
)
THOROUGH = settings(
    max_examples=400,
    stateful_step_count=40,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
    print_blob=False,
    report_multiple_bugs=False,
)


def test_a_map_does_what_the_reference_says(server):
    run_state_machine_as_test(lambda: MapMachine(server), settings=BRIEF)
