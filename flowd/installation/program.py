"""Put the program in place: beside the one in use, which a failure leaves as it is.

It comes from whatever runs this: a checkout, the single file, or an environment of its own that a
wheel was installed into.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

import flowd
from flowd.installation import InstallationFailed
from flowd.installation.places import CURRENT, Places, version_of

# In the folder of an interpreter that came with flowd.
BUNDLE_MARK: Final = "flowd-bundle"
COMMAND: Final = """\
#!{python}
import sys
from flowd.cli.entry import main
sys.exit(main())
"""
# The service may read neither, so that what lives there is of no use to it.
_HOMES: Final = ("/root", "/home")
# What binds an environment to the tool that has made it.
_BOUND: Final = ("__pycache__", "pipx_shared.pth", "_virtualenv.*")
_NOT_SOURCE: Final = ("__pycache__", "*.egg-info", "build")
_KEPT: Final = 2


def refuse_downgrade(places: Places) -> None:
    """An older version may not understand what a newer one has stored."""
    if not places.installed.exists():
        return
    asked = subprocess.run([places.installed, "--version"], capture_output=True, text=True)
    if asked.returncode == 0 and version_of(asked.stdout) > version_of(flowd.__version__):
        raise InstallationFailed(
            f"{asked.stdout.strip()} is installed, and this is {flowd.__version__}, which may not "
            "understand its data; nothing was changed. `flowd uninstall` keeps settings and data, "
            "if you want to try"
        )


def put_program(places: Places) -> None:
    """Raises InstallationFailed when that cannot be; nothing is changed then."""
    new = places.program / f"venv-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{os.getpid()}"
    print(f"installing flowd into {new} ...", file=sys.stderr)
    requirements = places.settings / "requirements.txt"
    try:
        _fill(new, places, requirements)
        open_to_all(new)
        _run([new / "bin/flowd", "--version"], "what was installed does not run")
    except OSError as error:
        shutil.rmtree(new, ignore_errors=True)
        raise InstallationFailed(f"cannot install flowd into {new}: {_first(error)}") from error
    except BaseException:
        shutil.rmtree(new, ignore_errors=True)
        raise
    link = places.program / f"{CURRENT}.new"
    link.unlink(missing_ok=True)
    link.symlink_to(new.name)
    link.replace(places.program / CURRENT)


def remove_old_programs(places: Places) -> None:
    """The one before stays too, and what a process was started from, which nobody restarts without
    systemd."""
    for old in sorted(places.program.glob("venv-*"))[:-_KEPT]:
        if not _is_in_use(old):
            shutil.rmtree(old)


def _is_in_use(program: Path) -> bool:
    # Whatever a process calls itself: what it has loaded is here.
    loaded = f" {program.resolve()}/"
    for maps in Path("/proc").glob("[0-9]*/maps"):
        with suppress(OSError):
            if loaded in maps.read_text(errors="replace"):
                return True
    return False


def _first(error: OSError) -> object:
    """Of a full disk shutil tells every file."""
    of_all = error.args[0] if isinstance(error, shutil.Error) else None
    return of_all[0][-1] if isinstance(of_all, list) else error


def _fill(new: Path, places: Places, requirements: Path) -> None:
    home, checkout = Path(sys.prefix), Path(flowd.__file__).parents[1]
    if (home / BUNDLE_MARK).exists():
        shutil.copytree(home, new, symlinks=True)
    elif (checkout / "pyproject.toml").is_file():
        _make_environment(new, places, has_pip=True)
        _install_source(new, checkout)
    elif sys.prefix != sys.base_prefix:
        _make_environment(new, places, has_pip=requirements.exists())
        _copy_packages(new)
    else:
        raise InstallationFailed(
            "flowd is among the packages of the whole machine here; install it into an environment "
            "of its own first (`pipx install`, `uv tool install`), or use the single file"
        )
    command = new / "bin/flowd"
    command.write_text(COMMAND.format(python=new / "bin/python3"))
    command.chmod(0o755)
    if requirements.exists():
        # What handlers of this machine need besides.
        _pip(new, "-r", requirements)


def _make_environment(new: Path, places: Places, *, has_pip: bool) -> None:
    interpreter = getattr(sys, "_base_executable", sys.executable)
    if places.stage is None and str(Path(sys.base_prefix).resolve()).startswith(_HOMES):
        raise InstallationFailed(
            f"{interpreter} lives in {sys.base_prefix}, where a service may not read; install with "
            "another one: sudo PYTHON=/usr/bin/python3 ./scripts/install in a checkout, "
            "`pipx install --python /usr/bin/python3`, or the single file, which has its own"
        )
    options = [] if has_pip else ["--without-pip"]
    _run([interpreter, "-m", "venv", *options, new], f"{interpreter} makes no environment")


def _install_source(new: Path, checkout: Path) -> None:
    # A copy: pip would leave its build in the checkout.
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder)
        for name in ("pyproject.toml", "README.md"):
            shutil.copy(checkout / name, copy)
        ignored = shutil.ignore_patterns(*_NOT_SOURCE)
        shutil.copytree(checkout / "flowd", copy / "flowd", ignore=ignored)
        _pip(new, copy)


def _copy_packages(new: Path) -> None:
    names = f"lib/python{sysconfig.get_python_version()}/site-packages"
    ignored = shutil.ignore_patterns(*_BOUND)
    for name in dict.fromkeys((sysconfig.get_path("purelib"), sysconfig.get_path("platlib"))):
        shutil.copytree(name, new / names, ignore=ignored, dirs_exist_ok=True)


def open_to_all(folder: Path) -> None:
    """Whoever's umask it was made with: everybody reads it, and nobody but its owner writes."""
    for path in (folder, *folder.rglob("*")):
        if not path.is_symlink():
            mode = path.stat().st_mode & 0o755
            path.chmod(mode | 0o444 | (0o111 if mode & 0o100 else 0))


def _pip(new: Path, *arguments: str | Path) -> None:
    options = ["--no-input", "--disable-pip-version-check", "--root-user-action=ignore"]
    python = new / "bin/python3"
    _run([python, "-m", "pip", "install", *options, *arguments], "what pip said stands above")


def _run(command: Sequence[str | Path], complaint: str) -> None:
    ended = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    if ended.returncode != 0:
        print(ended.stdout, file=sys.stderr)
        raise InstallationFailed(f"cannot install flowd; {complaint}, and nothing was changed")
