"""unreliable_handler fails exactly as configured."""

from __future__ import annotations

from typing import Any

import pytest

from flowd.errors import HandlerFailed
from tests.handler_calls import run_handler


def test_without_config_it_never_fails() -> None:
    outputs = [run_handler("unreliable_handler", {}) for _ in range(20)]

    assert outputs == [{"status": "ok", "attempt": 1}] * 20


def test_the_first_attempts_fail_and_the_next_succeeds() -> None:
    config = {"fail_first_attempts": 2}

    for attempt in (1, 2):
        with pytest.raises(HandlerFailed, match=f"attempt {attempt} failed on purpose"):
            run_handler("unreliable_handler", config, attempt=attempt)

    assert run_handler("unreliable_handler", config, attempt=3) == {"status": "ok", "attempt": 3}


@pytest.mark.parametrize("rate", [1, 1.0])
def test_a_rate_of_one_always_fails(rate: float) -> None:
    for attempt in range(1, 20):
        with pytest.raises(HandlerFailed, match=r"config\.failure_rate is 1$"):
            run_handler("unreliable_handler", {"failure_rate": rate}, attempt=attempt)


def test_a_rate_between_fails_some_and_spares_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("random.random", lambda: 0.5)

    with pytest.raises(HandlerFailed):
        run_handler("unreliable_handler", {"failure_rate": 0.51})
    assert run_handler("unreliable_handler", {"failure_rate": 0.5})["status"] == "ok"


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"failure_rate": 1.5}, "config.failure_rate: input should be less than or equal to 1"),
        ({"failure_rate": -1}, "config.failure_rate: input should be greater than or equal to 0"),
        ({"failure_rate": "x"}, "config.failure_rate: input should be a valid number"),
        (
            {"fail_first_attempts": -1},
            "config.fail_first_attempts: input should be greater than or equal to 0",
        ),
        (
            {"failure_rates": 0.5},
            "config.failure_rates is not known to this handler; did you mean 'failure_rate'?",
        ),
        (
            {"zzz": 1},
            "config.zzz is not known to this handler; it knows fail_first_attempts, failure_rate",
        ),
    ],
)
def test_a_wrong_config_fails_the_node_and_says_what_is_right(
    config: dict[str, Any], text: str
) -> None:
    with pytest.raises(HandlerFailed) as failure:
        run_handler("unreliable_handler", config)

    assert str(failure.value) == text


def test_every_problem_of_a_config_is_named() -> None:
    with pytest.raises(HandlerFailed, match=r"config\.failure_rate: .*; config\.typo is not known"):
        run_handler("unreliable_handler", {"failure_rate": 2, "typo": 1})
