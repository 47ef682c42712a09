"""The tables of legal moves."""

from __future__ import annotations

from enum import StrEnum

import pytest

from flowd.workflow.states import (
    EXECUTION_TRANSITIONS,
    NODE_TRANSITIONS,
    ExecutionState,
    NodeState,
)

TABLES = [(ExecutionState, EXECUTION_TRANSITIONS), (NodeState, NODE_TRANSITIONS)]


@pytest.mark.parametrize(("states", "table"), TABLES)
def test_every_state_has_a_row_of_states(
    states: type[StrEnum], table: dict[StrEnum, frozenset[StrEnum]]
) -> None:
    assert set(table) == set(states)
    assert all(following <= set(states) for following in table.values())


@pytest.mark.parametrize(("states", "table"), TABLES)
def test_every_state_can_be_reached_from_pending(
    states: type[StrEnum], table: dict[StrEnum, frozenset[StrEnum]]
) -> None:
    reached = {states("PENDING")}
    while following := {state for one in reached for state in table[one]} - reached:
        reached |= following
    assert reached == set(states)


def test_what_is_completed_skipped_failed_or_cancelled_has_ended_and_nothing_else() -> None:
    terminal = {"COMPLETED", "FAILED", "CANCELLED"}
    assert {state for state in ExecutionState if state.is_terminal} == terminal
    assert {state for state in NodeState if state.is_terminal} == {*terminal, "SKIPPED"}


def test_states_are_the_plain_words_that_redis_shows() -> None:
    assert f"{NodeState.QUEUED}" == "QUEUED"
    assert ExecutionState("RUNNING") is ExecutionState.RUNNING
