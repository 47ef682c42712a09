"""Where the parts of an installed flowd are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from flowd.installation import InstallationFailed

USER: Final = "flowd"
UNITS: Final = ("flowd.service", "flowd.socket")
# Within `Places.program`: a link to the environment in use.
CURRENT: Final = ".venv"


@dataclass(frozen=True, slots=True)
class Places:
    """The files of this machine, or, with a `stage`, the same ones below that folder.

    In a stage there are no users and no systemd, and nobody has to be root.
    """

    stage: Path | None = None

    @property
    def program(self) -> Path:
        return self._at("/opt/flowd")

    @property
    def settings(self) -> Path:
        return self._at("/etc/flowd")

    @property
    def data(self) -> Path:
        return self._at("/var/lib/flowd")

    @property
    def logs(self) -> Path:
        return self._at("/var/log/flowd")

    @property
    def units(self) -> Path:
        return self._at("/etc/systemd/system")

    @property
    def command(self) -> Path:
        return self._at("/usr/local/bin/flowd")

    @property
    def command_target(self) -> Path:
        """What the command is a link to; in a stage what it will lead to once that is a machine."""
        return Path("/opt/flowd") / CURRENT / "bin/flowd"

    @property
    def installed(self) -> Path:
        """The command of the environment in use."""
        return self.program / CURRENT / "bin/flowd"

    @property
    def has_systemd(self) -> bool:
        return self.stage is None and Path("/run/systemd/system").is_dir()

    def _at(self, path: str) -> Path:
        return Path(path) if self.stage is None else self.stage / path[1:]


def find_places(root: Path | None) -> Places:
    """Raises InstallationFailed where that is not this user's to change."""
    stage = None if root is None else root.absolute()
    if stage is not None:
        stage.mkdir(parents=True, exist_ok=True)
        stage = stage.resolve()
    if stage is None or stage == Path("/"):
        if os.geteuid() != 0:
            raise InstallationFailed(
                "this changes the whole machine: run it with sudo, or with --root DIR to stage it "
                "there"
            )
        stage = None
    if stage is None and _is_package():
        raise InstallationFailed(
            "flowd is here as a Debian package: apt-get upgrades and removes it"
        )
    return Places(stage)


def _is_package() -> bool:
    return Path("/var/lib/dpkg/info/flowd.postinst").exists()


def version_of(text: str) -> list[int]:
    """`flowd 0.2.0` or `0.2.0` as numbers that can be compared."""
    return [int(part) for part in text.split()[-1].split(".") if part.isdigit()]
