"""The units are what systemd accepts, and leave an attacker little."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from tests.daemon import PATIENCE_S

UNITS_FOLDER = Path(__file__).parents[2] / "flowd" / "installation"
UNITS = ("flowd.service", "flowd.socket")
EXPOSURE_MAX = 1.5


@pytest.fixture
def analyze() -> str:
    """systemd-analyze, which .ci/run makes sure of."""
    found = os.environ.get("FLOWD_TEST_SYSTEMD_ANALYZE") or shutil.which("systemd-analyze")
    if not found:
        reason = "systemd-analyze is not installed: nobody has checked flowd.service"
        warnings.warn(reason, stacklevel=1)
        pytest.skip(reason)
    return found


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, timeout=PATIENCE_S)


def test_the_units_are_valid(analyze: str, tmp_path: Path) -> None:
    program = Path(sys.executable).parent / "flowd"
    for name in UNITS:
        text = (UNITS_FOLDER / name).read_text()
        # There has to be a program; the one of this machine may not be installed.
        (tmp_path / name).write_text(text.replace("/opt/flowd/.venv/bin/flowd", str(program)))

    verified = run(analyze, "verify", *(tmp_path / name for name in UNITS))

    assert (verified.returncode, verified.stderr) == (0, "")


def test_a_unit_with_a_mistake_would_be_noticed(analyze: str, tmp_path: Path) -> None:
    text = (UNITS_FOLDER / "flowd.service").read_text()
    (tmp_path / "flowd.service").write_text(text.replace("KillMode=mixed", "KilMode=mixed"))

    assert "KilMode" in run(analyze, "verify", tmp_path / "flowd.service").stderr


def test_the_service_is_exposed_to_little(analyze: str) -> None:
    """Measured with systemd 252: 1.1. What is left is the network, and unix sockets."""
    security = run(analyze, "security", "--offline=yes", UNITS_FOLDER / "flowd.service")

    overall = re.search(r"Overall exposure level for flowd.service: ([\d.]+)", security.stdout)
    assert overall, security.stderr
    assert float(overall[1]) <= EXPOSURE_MAX, security.stdout
