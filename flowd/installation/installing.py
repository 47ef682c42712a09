"""Install and uninstall: the steps, in an order in which each may be the last to happen."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from typing import Final

from flowd.installation import InstallationFailed
from flowd.installation.places import Places
from flowd.installation.program import put_program, refuse_downgrade, remove_old_programs
from flowd.installation.service import (
    is_our_link,
    link_command,
    make_folders,
    make_user,
    put_units,
    remove_units,
    remove_user,
    restart,
    stop_without_systemd,
    write_settings,
)

# The command of a package.
PACKAGED: Final = Path("/usr/bin/flowd")


def install(places: Places) -> str:
    """What there is to say. Until the last step a service that runs keeps running as it is.

    Settings and data are kept. Raises InstallationFailed.
    """
    os.umask(0o022)
    refuse_downgrade(places)
    try:
        places.program.mkdir(parents=True, exist_ok=True)
        put_program(places)
        make_user(places)
        make_folders(places)
        write_settings(places, places.installed)
        link_command(places)
        put_units(places)
        remove_old_programs(places)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallationFailed(f"cannot install flowd: {error}") from error
    return _summary(places)


def configure() -> None:
    """What a package has not put there with its files: the user, the folders and the settings."""
    places = Places()
    make_user(places)
    make_folders(places)
    write_settings(places, PACKAGED)


def restart_packaged() -> None:
    """Once systemd knows the unit of a package."""
    restart(Places(), PACKAGED)


def uninstall(places: Places, *, purge: bool = False) -> str:
    """What there is to say. Once more is no mistake. Raises InstallationFailed."""
    try:
        stop_without_systemd(places)
        remove_units(places)
        if is_our_link(places):
            places.command.unlink()
        _remove(places.program)
        if not purge:
            return (
                f"flowd is removed; {places.settings} and {places.data} are kept "
                "(--purge removes them)"
            )
        for folder in (places.settings, places.data, places.logs):
            _remove(folder)
        remove_user(places)
    except (OSError, subprocess.CalledProcessError) as error:
        raise InstallationFailed(f"cannot remove flowd: {error}") from error
    return "flowd is removed, with its settings and data"


def _remove(folder: os.PathLike[str]) -> None:
    if os.path.lexists(folder):
        shutil.rmtree(folder)


def _summary(places: Places) -> str:
    asked = subprocess.run([places.installed, "--version"], capture_output=True, text=True)
    lines = [
        f"{asked.stdout.strip()} is installed.",
        f"  settings  {places.settings / 'flowd.toml'}",
        f"  data      {places.data}",
    ]
    if places.has_systemd:
        lines += [
            "  start     sudo systemctl start flowd",
            "  look      sudo flowd status; journalctl -u flowd",
        ]
    else:
        start = f"{places.installed} start --config {places.settings / 'flowd.toml'}"
        lines.append(f"  start     {start}")
    return "\n".join(lines)
