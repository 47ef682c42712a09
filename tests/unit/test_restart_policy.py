"""When a dead child comes back, and when it does not."""

from __future__ import annotations

import itertools

import pytest

from flowd.supervisor.restart_policy import (
    BACKOFF_MAX_S,
    HEALTHY_AFTER_S,
    START_LIMIT_S,
    TRIES_MAX,
    History,
    after_death,
)


def pauses(lives_s: list[float | None], *, jitter: float = 0.0) -> list[float | None]:
    """The pause after each of these lives; a life is the seconds after ready, or None."""
    history = History()
    found: list[float | None] = []
    for ready_for_s in lives_s:
        history, pause_s = after_death(history, ready_for_s=ready_for_s, jitter=jitter)
        found.append(pause_s)
    return found


def test_a_child_that_never_becomes_ready_is_given_up_after_three_tries() -> None:
    assert pauses([None, None, None]) == [0.5, 1.0, None]


def test_giving_up_takes_at_most_thirty_seconds() -> None:
    waits = sum(pause for pause in pauses([None] * TRIES_MAX) if pause is not None)

    assert TRIES_MAX * START_LIMIT_S + waits <= 30


def test_a_role_that_gets_one_try_is_given_up_at_once() -> None:
    _, pause_s = after_death(History(), ready_for_s=None, jitter=0, tries_max=1)

    assert pause_s is None


def test_a_death_after_ready_is_answered_at_once_the_first_time() -> None:
    assert pauses([0.1]) == [0.0]


def test_pauses_double_up_to_the_limit_and_stay_there() -> None:
    found = pauses([0.1] * 1500)

    assert found[:6] == pytest.approx([0, 0.1, 0.2, 0.4, 0.8, 1.6])
    assert found[-1] == BACKOFF_MAX_S
    assert all(a <= b for a, b in itertools.pairwise(found))  # type: ignore[operator]


def test_a_healthy_life_is_a_fresh_start() -> None:
    assert pauses([0.1] * 8 + [HEALTHY_AFTER_S])[-1] == 0.0
    assert pauses([0.1] * 8 + [HEALTHY_AFTER_S - 0.1])[-1] > 1  # type: ignore[operator]


def test_a_child_that_was_ready_once_is_never_given_up() -> None:
    found = pauses([0.1] + [None] * 50)

    assert None not in found
    assert found[-1] == BACKOFF_MAX_S


def test_being_ready_forgives_the_failed_starts_before() -> None:
    assert pauses([None, None, 0.1, None, None, None])[-1] is not None


def test_jitter_takes_up_to_half_of_a_pause() -> None:
    full, least = pauses([0.1] * 4)[-1], pauses([0.1] * 4, jitter=1.0)[-1]

    assert full == pytest.approx(0.4)
    assert least == pytest.approx(0.2)
