"""`flowd schema`: what an editor needs to complete and check workflow files."""

from __future__ import annotations

from pathlib import Path

import click

from flowd.cli.options import config_option
from flowd.cli.remote import show_json


@click.command()
@config_option
def schema(config: Path | None) -> None:
    """Print the JSON Schema of workflow files, for editors.

    It knows the handlers there are, your own included, and what their configs may hold.
    """
    from flowd.cli.file_schema import file_schema
    from flowd.cli.local_check import settings_file_of
    from flowd.config.loading import load_settings
    from flowd.handlers.loading import open_registry

    registry = open_registry(load_settings(settings_file_of("-", config)))
    show_json(file_schema({name: registry.load(name) for name in registry.names()}))
