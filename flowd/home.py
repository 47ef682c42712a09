"""The folder a flowd is at home in: what it keeps there is called so, and may belong to somebody
else. Reads no settings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

DEFAULT_FILE: Final = "flowd.toml"
DEFAULT_DATA_DIR: Final = Path(".flowd")


def is_home(folder: Path) -> bool:
    """Whether a flowd is at home in it; not where this user may not look."""
    try:
        return (folder / DEFAULT_FILE).exists() or (folder / DEFAULT_DATA_DIR).is_dir()
    except PermissionError:
        return False


def may_be_there(file: Path) -> bool:
    """Also where this user may not look: whoever reads it then says so."""
    try:
        return file.exists()
    except PermissionError:
        return True


def nearest_home_above() -> Path | None:
    """None too where this folder is gone. What others have put above it is passed over: whoever
    may write to `/tmp`, say, would decide what a command below it asks."""
    try:
        above = Path.cwd().parents
    except OSError:
        return None
    for folder in above:
        if is_home(folder) and not find_foreign(folder / DEFAULT_FILE, folder / DEFAULT_DATA_DIR):
            return folder
    return None


def find_foreign(*paths: Path) -> Path | None:
    """The first of these files and folders that belongs to another user; root is none, nor is who
    called sudo."""
    trusted = {0, os.geteuid(), int(os.environ.get("SUDO_UID") or 0)}
    for path in paths:
        if os.access(path, os.F_OK) and path.stat().st_uid not in trusted:
            return path
    return None
