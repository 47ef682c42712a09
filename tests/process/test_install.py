"""`./scripts/install`, staged in a folder: what it puts there runs, is upgraded and goes again.

It is the one test that needs pip's package index, or what pip has kept of it.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from flowd.cli.samples import load_samples
from flowd.config.loading import load_settings
from tests.api_client import ApiClient
from tests.daemon import Daemon, is_all_running, wait_until
from tests.process.flowd_process import clean_environ

ROOT = Path(__file__).parents[2]


def run_script(name: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts" / name, *arguments],
        capture_output=True,
        text=True,
        timeout=1_800,
        env=os.environ | {"PYTHON": sys.executable},
    )


def install(stage: Path) -> None:
    run = run_script("install", "--root", stage)
    assert run.returncode == 0, run.stderr


def run_staged(stage: Path, *arguments: str | Path) -> str:
    program = stage / "opt" / "flowd" / ".venv" / "bin" / "flowd"
    # A folder of its own: nothing here may come from the checkout.
    run = subprocess.run(
        [program, *arguments], capture_output=True, text=True, cwd=stage, env=clean_environ()
    )
    assert run.returncode == 0, run.stderr
    return run.stdout


def files_of(stage: Path) -> list[str]:
    """The files of a stage, without those of the environment."""
    found = (str(one.relative_to(stage)) for one in stage.rglob("*") if not one.is_dir())
    return sorted(one for one in found if not one.startswith("opt/flowd/"))


@contextmanager
def running(stage: Path) -> Iterator[Daemon]:
    program = stage / "opt" / "flowd" / ".venv" / "bin" / "flowd"
    config = stage / "etc" / "flowd" / "flowd.toml"
    data_dir = stage / "var" / "lib" / "flowd"
    command = [str(program), "start", "--config", str(config)]
    with Daemon(command, stage.parent, data_dir, clean_environ()) as daemon:
        daemon.wait_for_status(is_all_running, "the staged flowd to run")
        yield daemon


def completes_a_workflow(daemon: Daemon) -> bool:
    status = daemon.status()
    assert status is not None
    api = ApiClient(status["api"])
    execution_id = api.submit_workflow(load_samples()["linear"])
    api.trigger_workflow(execution_id)
    wait_until(lambda: api.execution_status(execution_id) != "RUNNING", "the workflow to end")
    return api.execution_status(execution_id) == "COMPLETED"


def test_installed_run_upgraded_and_removed(tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    settings = stage / "etc" / "flowd" / "flowd.toml"
    data_dir = stage / "var" / "lib" / "flowd"
    venv = stage / "opt" / "flowd" / ".venv"

    install(stage)

    assert files_of(stage) == [
        "etc/flowd/flowd.toml",
        "etc/systemd/system/flowd.service",
        "etc/systemd/system/flowd.socket",
        "usr/local/bin/flowd",
    ]
    assert (stage / "usr/local/bin/flowd").readlink() == Path("/opt/flowd/.venv/bin/flowd")
    assert load_settings(settings, {}, {}).environment == "production"
    assert os.access(venv / "bin" / "flowd", os.X_OK)
    assert load_settings(settings, {}, {}).redis.data_dir == data_dir
    assert (settings.stat().st_mode & 0o777, data_dir.stat().st_mode & 0o777) == (0o640, 0o700)
    run_staged(stage, "config", "init", tmp_path / "shipped.toml")
    assert (tmp_path / "shipped.toml").read_text() == (ROOT / "flowd.toml").read_text()

    # What runs beside this test has the ports of the shipped file.
    edited = re.sub(r"^port = \d+", "port = 0", settings.read_text(), flags=re.M)
    settings.write_text(edited.replace('mode = "auto"', 'mode = "embedded"'))
    edited = settings.read_text()
    first = venv.resolve()
    with running(stage) as daemon:
        assert completes_a_workflow(daemon)
        settings.with_name("requirements.txt").write_text("iniconfig\n")
        install(stage)

        assert list(venv.glob("lib/python3*/site-packages/iniconfig"))
        assert settings.read_text() == edited
        assert venv.resolve() != first
        # What runs goes on with what it was started from.
        daemon.kill("worker-1")
        daemon.wait_until_running()
        assert completes_a_workflow(daemon)
        assert "is RUNNING" in run_staged(stage, "status", "--config", settings)
        # No systemd is here to stop what is removed.
        assert "are kept" in run_script("uninstall", "--root", stage).stdout
        assert daemon.wait_for_end() == 0

    assert not venv.parent.exists()
    assert settings.read_text() == edited
    assert (data_dir / "appendonlydir").is_dir()

    assert run_script("uninstall", "--root", stage, "--purge").returncode == 0
    assert files_of(stage) == []
    # Once more is no mistake.
    assert run_script("uninstall", "--root", stage, "--purge").returncode == 0


def test_an_argument_that_does_not_exist_is_a_usage_error(tmp_path: Path) -> None:
    for script, arguments in (
        ("install", ["--purge"]),
        ("install", ["--root"]),
        ("uninstall", ["everything"]),
    ):
        run = run_script(script, *arguments)
        assert run.returncode == 2
        assert f"usage: scripts/{script}" in run.stderr
    assert "Install flowd as a service" in run_script("install", "--help").stdout
    assert list(tmp_path.iterdir()) == []


def test_an_environment_that_cannot_be_made_changes_nothing(tmp_path: Path) -> None:
    stage = tmp_path / "stage"
    with_no_index = os.environ | {"PYTHON": sys.executable, "PIP_NO_INDEX": "1"}
    run = subprocess.run(
        [ROOT / "scripts" / "install", "--root", stage],
        capture_output=True,
        text=True,
        env=with_no_index | {"PIP_FIND_LINKS": ""},
    )

    assert run.returncode == 1
    assert "cannot install flowd" in run.stderr
    assert files_of(stage) == []
    assert list((stage / "opt" / "flowd").iterdir()) == []
