"""The model of trees: executions that have children, and what is done to them."""

from __future__ import annotations

from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.model.tree_machine import TreeMachine

BRIEF = settings(
    max_examples=40,
    stateful_step_count=40,
    suppress_health_check=list(HealthCheck),
)


def test_a_tree_of_executions_is_at_every_step_as_the_reference_says(server):
    run_state_machine_as_test(lambda: TreeMachine(server), settings=BRIEF)
