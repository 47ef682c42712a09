"""`scripts/venv.sh`: what was interrupted while it was made is made again."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "scripts" / "venv.sh"


def test_an_environment_whose_making_was_interrupted_is_not_whole(tmp_path: Path) -> None:
    """Ctrl-C behind the installation of pip left one without `activate`, which was then kept."""
    (tmp_path / "scripts").mkdir()
    script = Path(shutil.copy(SOURCE, tmp_path / "scripts"))
    programs = tmp_path / ".venv" / "bin"
    programs.mkdir(parents=True)
    python = programs / "python"
    python.write_text("#!/bin/sh\nexit 0\n")
    python.chmod(0o755)

    def is_whole() -> bool:
        command = f"source {script} && is_whole_venv"
        return subprocess.run(["bash", "-c", command]).returncode == 0

    assert not is_whole()
    (programs / "activate").touch()
    assert is_whole()
    python.write_text("#!/bin/sh\nexit 1\n")
    assert not is_whole()
