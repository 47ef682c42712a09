"""The stub daemon: a supervisor with roles made for tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.daemon import Daemon, ended_with


@pytest.fixture
def boot(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Daemon]]:
    """`boot("worker-1:worker:serve", grace_s=1)`: ended with the test, if not by it."""
    started: list[Daemon] = []

    def boot(*roles: str, **limits: float) -> Daemon:
        environ = {**os.environ} | {f"STUB_{name.upper()}": str(limits[name]) for name in limits}
        environ["PYTHONPATH"] = str(Path(__file__).parents[2])
        arguments = [sys.executable, "-m", "tests.unit.stub_daemon", str(tmp_path), *roles]
        daemon = Daemon(arguments, tmp_path, tmp_path, environ)
        started.append(daemon)
        return daemon

    with ended_with(request.node.name, started):
        yield boot
