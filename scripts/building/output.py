"""What all that is built shares: the tree it comes from, its time, and checksums."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from pathlib import Path

from flowd.installation.program import open_to_all

ROOT = Path(__file__).parents[2]
# Where neither git nor SOURCE_DATE_EPOCH says a time: the first that a zip file can hold.
_EPOCH = 315_532_800
_NOT_SOURCE = shutil.ignore_patterns("__pycache__", "*.egg-info", "build")


def source_epoch() -> int:
    """The time of every file that is built, in seconds: that of the commit."""
    if given := os.environ.get("SOURCE_DATE_EPOCH"):
        return int(given)
    asked = subprocess.run(
        ["git", "-C", ROOT, "log", "-1", "--format=%ct"], capture_output=True, text=True
    )
    return int(asked.stdout) if asked.returncode == 0 else _EPOCH


def copy_source(folder: Path) -> None:
    """What a wheel is made of. pip would leave its build in the checkout."""
    for name in ("pyproject.toml", "README.md"):
        shutil.copy(ROOT / name, folder)
    shutil.copytree(ROOT / "flowd", folder / "flowd", ignore=_NOT_SOURCE)
    open_to_all(folder)


def blocks_of(folder: Path, size: int) -> int:
    """How many blocks of `size` bytes it fills: one for a folder, whatever its file system says."""
    sizes = (0 if one.is_dir() else one.lstat().st_size for one in folder.rglob("*"))
    return sum(each // size + 1 for each in sizes)


def write_checksum(file: Path) -> None:
    """Beside it, as `sha256sum --check` reads it."""
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    file.with_name(f"{file.name}.sha256").write_text(f"{digest}  {file.name}\n")
