"""Every `flowd` a test starts ends with the test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import ended_with
from tests.process.faulty import FaultyFlowd
from tests.process.flowd_process import Flowd


@pytest.fixture
def run_flowd(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Flowd]]:
    """`run_flowd("start", "--workers", "1", REDIS_PORT="0")`: ended with the test, if not by it."""
    running: list[Flowd] = []

    def run(*arguments: str, **environ: str) -> Flowd:
        flowd = Flowd(tmp_path, arguments, **environ)
        running.append(flowd)
        return flowd

    with ended_with(request.node.name, running):
        yield run


@pytest.fixture
def run_faulty(
    tmp_path: Path, request: pytest.FixtureRequest
) -> Iterator[Callable[..., FaultyFlowd]]:
    """As `run_flowd`, with the handlers of `fault_handlers`."""
    running: list[FaultyFlowd] = []

    def run(*arguments: str, **environ: str) -> FaultyFlowd:
        flowd = FaultyFlowd(tmp_path, arguments, **environ)
        running.append(flowd)
        return flowd

    with ended_with(request.node.name, running):
        yield run
