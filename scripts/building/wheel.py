"""The wheel: flowd without what it depends on, for pip, pipx and uv."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from scripts.building.output import copy_source, source_epoch


def build_wheel(folder: Path) -> Path:
    with tempfile.TemporaryDirectory() as source:
        copy_source(Path(source))
        pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--no-input", "wheel"]
        subprocess.run(
            [*pip, "-qq", "--no-deps", "--wheel-dir", folder, source],
            check=True,
            env=os.environ | {"SOURCE_DATE_EPOCH": str(source_epoch())},
            umask=0o022,
        )
    (wheel,) = folder.glob(f"flowd-{_version()}-*.whl")
    return wheel


def _version() -> str:
    from flowd import __version__

    return __version__
