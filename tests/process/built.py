"""What the tests of packages share: built once in a run, by whichever of its processes needs it
first."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from scripts.building.bundle import build_bundle
from tests.daemon import PATIENCE_S
from tests.process.flowd_process import clean_environ

ROOT = Path(__file__).parents[2]


def build_wheel(folder: Path, umask: int = 0o022) -> None:
    """As `scripts/build wheel` does."""
    subprocess.run(
        [sys.executable, "-m", "scripts.building", "wheel", "--into", folder],
        cwd=ROOT,
        check=True,
        timeout=PATIENCE_S,
        env=clean_environ() | {"SOURCE_DATE_EPOCH": "1700000000"},
        umask=umask,
    )


def the_wheel(factory: pytest.TempPathFactory) -> Path:
    (wheel,) = _built_once(factory, "wheel", build_wheel).glob("*.whl")
    return wheel


def the_bundle(factory: pytest.TempPathFactory) -> Path:
    """Elsewhere than where it was made."""
    wheel = the_wheel(factory)
    return _built_once(factory, "bundle", lambda folder: build_bundle(folder, wheel))


def _built_once(factory: pytest.TempPathFactory, name: str, build: Callable[[Path], None]) -> Path:
    run = factory.getbasetemp()
    # Each process of a run has a folder of its own, beside those of the others.
    shelf = run.parent if "PYTEST_XDIST_WORKER" in os.environ else run
    built, new = shelf / f"built-{name}", shelf / f"new-{name}"
    with (shelf / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not built.exists():
            shutil.rmtree(new, ignore_errors=True)
            new.mkdir()
            build(new)
            new.rename(built)
    return built
