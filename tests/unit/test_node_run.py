"""What a handler returned, as it is to be committed."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from flowd.errors import Fail
from flowd.handlers.outcome import OUTPUT_BYTES_MAX
from flowd.workers.node_run import output_text

PREPARED: Any = SimpleNamespace(node=SimpleNamespace(handler="mine"))


def test_an_output_that_is_too_large_is_refused_before_it_is_redacted() -> None:
    frame = len(output_text(PREPARED, {"text": ""}))
    largest = "x" * (OUTPUT_BYTES_MAX - frame)

    assert len(output_text(PREPARED, {"text": largest})) == OUTPUT_BYTES_MAX
    with pytest.raises(Fail, match=f"{OUTPUT_BYTES_MAX + 1} bytes"):
        output_text(PREPARED, {"text": largest + "x"})
