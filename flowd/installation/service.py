"""What makes the program a service: its user, folders, settings, command and units."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Final

from flowd.installation.places import UNITS, USER, Places

# The exit code of `flowd stop` where there is nothing to stop.
_NOT_RUNNING: Final = 3
# That of a service.
_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def make_user(places: Places) -> None:
    if places.stage is None and not _has_user():
        options = ["--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin"]
        subprocess.run(["useradd", *options, "--home-dir", str(places.data), USER], check=True)


def remove_user(places: Places) -> None:
    if places.stage is None and _has_user():
        subprocess.run(["userdel", USER], check=True)


def _has_user() -> bool:
    try:
        pwd.getpwnam(USER)
    except KeyError:
        return False
    return True


def make_folders(places: Places) -> None:
    for folder, mode, owner in (
        (places.settings, 0o750, "root"),
        (places.data, 0o700, USER),
    ):
        folder.mkdir(parents=True, exist_ok=True)
        folder.chmod(mode)
        if places.stage is None:
            shutil.chown(folder, owner, USER)


def write_settings(places: Places, command: Path) -> None:
    """Only where there are none: they belong to the people of this machine from then on."""
    file = places.settings / "flowd.toml"
    if file.exists():
        if re.search(r'^environment = "development"', file.read_text("utf-8"), re.MULTILINE):
            _say(
                f'{file} says environment = "development": "production" shows no traceback to '
                "clients"
            )
        return
    # A name nobody can have put a link under.
    with tempfile.TemporaryDirectory(dir=places.settings) as folder:
        new = Path(folder) / file.name
        subprocess.run([command, "config", "init", new], check=True, stdout=subprocess.DEVNULL)
        text = new.read_text("utf-8")
        text = text.replace('data_dir = ".flowd"', f'data_dir = "{places.data}"')
        text = text.replace('environment = "development"', 'environment = "production"', 1)
        new.write_text(text, "utf-8")
        # It may come to hold a key of a model: nobody else may read it.
        new.chmod(0o640)
        if places.stage is None:
            shutil.chown(new, "root", USER)
        new.replace(file)


def link_command(places: Places) -> None:
    """So that `flowd` is on the PATH of everybody, and of sudo. Something else of that name
    stays."""
    link = places.command
    link.parent.mkdir(parents=True, exist_ok=True)
    if not os.path.lexists(link):
        link.symlink_to(places.command_target)
    elif not is_our_link(places):
        _say(f"{link} is something else and stays; flowd is {places.installed}")


def is_our_link(places: Places) -> bool:
    return places.command.is_symlink() and places.command.readlink() == places.command_target


def put_units(places: Places) -> None:
    places.units.mkdir(parents=True, exist_ok=True)
    for name in UNITS:
        unit = places.units / name
        shutil.copyfile(Path(__file__).with_name(name), unit)
        unit.chmod(0o644)
    if places.has_systemd:
        _systemctl("daemon-reload")
        _systemctl("enable", "--quiet", "flowd.service")
        restart(places, places.installed)


def restart(places: Places, command: Path) -> None:
    """What runs, unless its settings would keep it from starting again."""
    settings = places.settings / "flowd.toml"
    check: list[str | Path] = [command, "config", "check", "--quiet", "--config", settings]
    # As the service: own handlers are imported, with no more rights than they will have.
    checked = subprocess.run(
        check, user=USER, group=USER, extra_groups=(), cwd=places.data, env={"PATH": _PATH}
    )
    if checked.returncode == 0:
        _systemctl("try-restart", "flowd.service")
    else:
        _say(
            "flowd was not restarted, since it would not start again: what runs continues. Mend "
            f"{settings}, then `sudo systemctl restart flowd`"
        )


def stop_without_systemd(places: Places) -> None:
    """What systemd stops with its unit. Where it cannot be, it says why, and goes on."""
    settings = places.settings / "flowd.toml"
    if places.has_systemd or not (places.installed.exists() and settings.exists()):
        return
    command: list[str | Path] = [places.installed, "stop", "--config", settings]
    stopped = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    if stopped.returncode not in (0, _NOT_RUNNING):
        _say(stopped.stderr.rstrip())


def remove_units(places: Places) -> None:
    units = [places.units / name for name in UNITS]
    if places.has_systemd and any(unit.exists() for unit in units):
        _systemctl("disable", "--quiet", "--now", *reversed(UNITS))
    for unit in units:
        unit.unlink(missing_ok=True)
    if places.has_systemd:
        _systemctl("daemon-reload")


def _systemctl(*arguments: str) -> None:
    subprocess.run(["systemctl", *arguments], check=True)


def _say(message: str) -> None:
    print(message, file=sys.stderr)
