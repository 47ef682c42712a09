"""Options several commands share, and the settings they lead to."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowd.config import Settings
from flowd.config.loading import load_settings

config_option = click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    envvar="FLOWD_CONFIG",
    help="The settings file; without it, flowd.toml in this folder when there is one.",
)
host_option = click.option("--host", help="Where the API listens.")
port_option = click.option("--port", type=int, help="Its port; 0 lets the system choose.")
data_dir_option = click.option(
    "--data-dir", help="Where this flowd keeps its data, its lock and its control socket."
)


def settings_of(config: Path | None, **flags: Any) -> Settings:
    """The settings with these flags by key, `api__port=0`; None among them is not given."""
    return load_settings(config, {name.replace("__", "."): flags[name] for name in flags})
