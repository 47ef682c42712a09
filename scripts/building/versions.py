"""What `scripts/try_installs` installs: this version, and older ones of this repository."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from scripts.building.bundle import build_bundle
from scripts.building.debian_package import write_debian_package
from scripts.building.output import ROOT
from scripts.building.single_file import write_single_file
from scripts.building.wheel import build_wheel

# What the code that made the first packages calls itself here: it is older than its number says.
OLDER: Final = "0.1.9"
# 0.1.0 before workflows could choose, wait and call each other, and as it was at its end.
_CHECKOUTS: Final = ("ce633fc", "c89c754")
_FIRST_PACKAGE: Final = "scripts/building/debian_package.py"
_BUILD_OLDER: Final = """
import sys
from pathlib import Path
from scripts.building.bundle import build_bundle
from scripts.building.debian_package import write_debian_package
from scripts.building.single_file import write_single_file
from scripts.building.wheel import build_wheel
bundle, folder = map(Path, sys.argv[1:])
build_bundle(bundle)
write_single_file(bundle, folder / "flowd")
write_debian_package(bundle, folder).rename(folder / "flowd.deb")
build_wheel(folder)
"""


def main() -> None:
    folder = Path(sys.argv[1])
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    _build_this(folder)
    first = _git("log", "--diff-filter=A", "--format=%H", "-1", "--", _FIRST_PACKAGE)
    _build_older(first, folder / "older")
    trees = [folder / "checkouts" / commit for commit in _CHECKOUTS]
    for tree in trees:
        _check_out(tree.name, tree)
    # What pip may not ask an index for, in a Debian without a network. redis needs the last one
    # before Python 3.11.3, which the bare one may have; a later pip leaves it out.
    _pip("wheel", "--wheel-dir", folder / "wheels", *folder.glob("*.whl"), "setuptools", "wheel")
    for tree in trees:
        # Each by itself: to pip they are one package in two versions.
        _pip("wheel", "--wheel-dir", folder / "wheels", tree, "async-timeout")
    _pip("wheel", "--wheel-dir", folder / "wheels", "pip", "pipx", "uv")
    for own in (folder / "wheels").glob("flowd-*"):
        own.unlink()


def _build_this(folder: Path) -> None:
    """Twice, in places and at times of their own: the same bytes."""
    for place in (folder, folder / "again"):
        place.mkdir(exist_ok=True)
        wheel = build_wheel(place)
        with tempfile.TemporaryDirectory() as bundle:
            build_bundle(Path(bundle), wheel)
            write_single_file(Path(bundle), place / "flowd")
            write_debian_package(Path(bundle), place).rename(place / "flowd.deb")
    for file in sorted((folder / "again").iterdir()):
        if file.read_bytes() != (folder / file.name).read_bytes():
            sys.exit(f"{file.name} was built twice, and differs: {file}, {folder / file.name}")
        print(f"{file.name}: built twice, the same {file.stat().st_size:,} bytes")
    shutil.rmtree(folder / "again")


def _build_older(commit: str, folder: Path) -> None:
    """By its own code, from its own code."""
    folder.mkdir()
    with tempfile.TemporaryDirectory() as place:
        tree, bundle = Path(place) / "tree", Path(place) / "bundle"
        bundle.mkdir()
        _check_out(commit, tree)
        module = tree / "flowd" / "__init__.py"
        module.write_text(
            module.read_text().replace('__version__ = "0.2.0"', f'__version__ = "{OLDER}"')
        )
        command = [sys.executable, "-c", _BUILD_OLDER, bundle, folder]
        subprocess.run(command, cwd=tree, check=True, env=os.environ | {"PYTHONPATH": str(tree)})


def _check_out(commit: str, folder: Path) -> None:
    folder.mkdir(parents=True)
    packed = subprocess.run(["git", "-C", ROOT, "archive", commit], stdout=subprocess.PIPE)
    if packed.returncode != 0:
        sys.exit(f"{commit} is not in this repository: clone it with its history")
    subprocess.run(["tar", "-x", "-C", folder], input=packed.stdout, check=True)


def _git(*arguments: str) -> str:
    command = ["git", "-C", ROOT, *arguments]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def _pip(*arguments: str | Path) -> None:
    pip = [sys.executable, "-m", "pip", "-qq", "--disable-pip-version-check"]
    subprocess.run([*pip, *arguments], check=True)


if __name__ == "__main__":
    main()
