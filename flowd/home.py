"""The folder a flowd is at home in: what it keeps there is called so, and may belong to somebody
else. Reads no settings.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

DEFAULT_FILE: Final = "flowd.toml"
DEFAULT_DATA_DIR: Final = Path(".flowd")


def find_foreign(*paths: Path) -> Path | None:
    """The first of these files and folders that belongs to another user; root is none, nor is who
    called sudo."""
    trusted = {0, os.geteuid(), int(os.environ.get("SUDO_UID") or 0)}
    for path in paths:
        if os.access(path, os.F_OK) and path.stat().st_uid not in trusted:
            return path
    return None
