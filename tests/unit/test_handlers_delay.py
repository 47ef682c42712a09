"""delay waits as long as it is told."""

from __future__ import annotations

import time

import pytest

from flowd.errors import HandlerFailed
from tests.handler_calls import run_handler


def test_it_waits() -> None:
    began = time.monotonic()

    assert run_handler("delay", {"seconds": 0.05}) == {"status": "ok", "seconds": 0.05}
    # The event loop counts in milliseconds.
    assert time.monotonic() - began >= 0.049


@pytest.mark.parametrize("seconds", [-1, "1", 86401, float("nan"), None])
def test_what_is_no_span_of_time_is_refused(seconds: object) -> None:
    with pytest.raises(HandlerFailed, match=r"^config\.seconds: "):
        run_handler("delay", {"seconds": seconds})
