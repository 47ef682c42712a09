"""Options several commands share, and the settings they lead to."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Final

import click

from flowd.config import Settings
from flowd.config.loading import ignored_variables, load_settings
from flowd.home import DEFAULT_FILE, is_home, may_be_there, nearest_home_above

# What `flowd install` writes.
MACHINE_FILE: Final = Path("/etc/flowd/flowd.toml")

config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="FLOWD_CONFIG",
    help="Settings file; default: flowd.toml here; of what runs also one above, or the service's.",
)
host_option = click.option("--host", help="Address the API listens on.")
port_option = click.option("--port", type=int, help="Port of the API; 0 lets the system choose.")
data_dir_option = click.option(
    "--data-dir", help="Folder of the data, the lock and the control socket of this flowd."
)


def settings_of(config: Path | None, **flags: Any) -> Settings:
    """The settings with these flags by key, `api__port=0`; None among them is not given."""
    return load_settings(config, {name.replace("__", "."): flags[name] for name in flags})


def log_warnings(settings: Settings) -> None:
    """What of the environment is not taken; call it once the log is set up."""
    from flowd.log import get_logger

    for reason in ignored_variables(settings.handlers.folder or Path.cwd()):
        get_logger(__name__).warning("setting.ignored", reason=reason)


def settings_to_run(config: Path | None, **flags: Any) -> Settings:
    """As `settings_of`, for what is to run with them: what they name has to be there."""
    from flowd.config.places import require_places

    settings = settings_of(config, **flags)
    require_places(settings)
    return settings


def config_of_running(config: Path | None) -> Path | None:
    """The settings file, or the folder, of the flowd that is meant: the one named, else that of
    this folder, of the nearest above it, or of the service of this machine; None where there is
    none, and for this folder."""
    if config is not None or is_home(Path()) or os.environ.get("FLOWD_REDIS__DATA_DIR"):
        return config
    if (above := nearest_home_above()) is not None:
        file = above / DEFAULT_FILE
        return file if file.exists() else above
    return MACHINE_FILE if may_be_there(MACHINE_FILE) else None


def running_settings_of(config: Path | None, **flags: Any) -> Settings:
    """As `settings_of`, for commands that look at a flowd that was started already."""
    if flags.get("redis__data_dir") is None:
        config = config_of_running(config)
    return settings_of(config, **flags)
