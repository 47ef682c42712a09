"""noop succeeds, whatever its config."""

from __future__ import annotations

from tests.handler_calls import run_handler


def test_noop_answers_ok_for_any_config() -> None:
    assert run_handler("noop", {}) == {"status": "ok"}
    assert run_handler("noop", {"anything": [1, 2]}) == {"status": "ok"}
