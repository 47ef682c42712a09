"""The wheel: all of flowd is in it, and nothing else is needed but what it depends on.

Built by pip, which takes the build's own tools from its index or from what it has kept of it.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from flowd import __version__
from tests.daemon import PATIENCE_S
from tests.process.built import ROOT, build_wheel, the_wheel
from tests.process.flowd_process import clean_environ

# Only what `scripts/vendor` writes down and compares.
LEFT_OUT = {"flowd/web/vendor.lock.json"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return the_wheel(tmp_path_factory)


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel; what it depends on is that of the tests."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    subprocess.run(
        [sys.executable, "-m", "pip", "--python", python, "install", "-q", "--no-deps", wheel],
        check=True,
        timeout=PATIENCE_S,
    )
    (packages,) = folder.glob("lib/python3*/site-packages")
    # As lines of a .pth file their own .pth files, which find the checkout, say nothing.
    (packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def attempt(
    environment: Path, folder: Path, program: str, *arguments: str | Path
) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [environment / "bin" / program, *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        timeout=PATIENCE_S,
        env=clean_environ() | {"TMPDIR": str(folder)},
    )


def run(environment: Path, folder: Path, program: str, *arguments: str | Path) -> str:
    ended = attempt(environment, folder, program, *arguments)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def test_everything_of_the_package_is_in_the_wheel_and_its_checksum_beside_it(wheel: Path) -> None:
    listed = subprocess.run(
        ["git", "ls-files", "flowd"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    with zipfile.ZipFile(wheel) as archive:
        held = {name for name in archive.namelist() if name.startswith("flowd/")}

    assert set(listed.stdout.split()) - held == LEFT_OUT
    assert held <= set(listed.stdout.split())
    digest, name = wheel.with_name(f"{wheel.name}.sha256").read_text().split()
    assert (digest, name) == (hashlib.sha256(wheel.read_bytes()).hexdigest(), wheel.name)


def test_the_same_tree_gives_the_same_wheel_to_everybody(wheel: Path, tmp_path: Path) -> None:
    build_wheel(tmp_path, umask=0o077)

    assert (tmp_path / wheel.name).read_bytes() == wheel.read_bytes()


def test_the_wheel_alone_runs_flowd(environment: Path, tmp_path: Path) -> None:
    module = run(environment, tmp_path, "python", "-P", "-c", "import flowd; print(flowd.__file__)")
    assert Path(module.strip()).is_relative_to(environment)

    assert run(environment, tmp_path, "flowd", "--version") == f"flowd {__version__}\n"
    assert run(environment, tmp_path, "python", "-m", "flowd", "--version") == (
        f"flowd {__version__}\n"
    )
    assert "# Commands" in run(environment, tmp_path, "flowd", "help", "cli")
    assert "linear COMPLETED" in run(environment, tmp_path, "flowd", "demo")
    assert list(tmp_path.iterdir()) == []


def test_what_a_wheel_was_installed_into_installs_itself_as_a_service(
    environment: Path, tmp_path: Path
) -> None:
    stage = tmp_path / "stage"
    # As with the umask of somebody who is careful.
    (module,) = environment.glob("lib/python3*/site-packages/flowd/errors.py")
    module.chmod(0o600)
    assert f"{__version__} is installed" in run(
        environment, tmp_path, "flowd", "install", "--root", stage
    )
    installed = stage / "opt" / "flowd" / ".venv"
    assert {path.stat().st_mode & 0o777 for path in installed.rglob("errors.py")} == {0o644}
    assert run(installed, tmp_path, "flowd", "--version") == f"flowd {__version__}\n"
    settings = stage / "etc" / "flowd" / "flowd.toml"
    assert 'environment = "production"' in settings.read_text()

    # Somebody has installed a later version since.
    (package,) = installed.glob("lib/python3*/site-packages/flowd/__init__.py")
    package.write_text(package.read_text().replace(__version__, "10.0.0"))
    later = installed.readlink()
    refused = attempt(environment, tmp_path, "flowd", "install", "--root", stage)

    assert refused.returncode == 1
    assert f"10.0.0 is installed, and this is {__version__}" in refused.stderr
    assert (installed.readlink(), len(list(stage.glob("opt/flowd/venv-*")))) == (later, 1)

    # By the program that is removed.
    assert "are kept" in run(installed, tmp_path, "flowd", "uninstall", "--root", stage)
    assert settings.exists()
    assert not installed.parent.exists()
    run(environment, tmp_path, "flowd", "uninstall", "--root", stage, "--purge")
    assert [path for path in stage.rglob("*") if not path.is_dir()] == []
