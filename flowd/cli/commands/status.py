"""`flowd status`: what runs, asked over the control socket; exit codes as the LSB has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from flowd.cli.options import config_option, data_dir_option, running_settings_of
from flowd.cli.running import ask_running
from flowd.cli.status_page import status_page
from flowd.errors import InvalidSettings, StoreError


@click.command()
@config_option
@data_dir_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.pass_context
def status(ctx: click.Context, config: Path | None, data_dir: str | None, output: str) -> None:
    """Show the processes of the running flowd.

    Exits with 0 if it runs, 3 if not, and 4 if it does not answer.
    """
    answer = ask_running(ctx, config, data_dir, "status", exact=True)
    if data_dir is None and answer["redis"]["mode"] == "external":
        answer["redis"] |= _replication(config)
    click.echo(json.dumps(answer) if output == "json" else status_page(answer))
    if data_dir is None:
        _warn_of_mistakes(config)


def _replication(config: Path | None) -> dict[str, Any]:
    """Which server is the primary now, and its replicas; empty where nobody says."""
    from flowd.store.primary import replicas_now

    try:
        primary, replicas = replicas_now(running_settings_of(config).redis)
    except (InvalidSettings, StoreError):
        return {}
    return {"primary": primary, "replicas": [one._asdict() for one in replicas]}


def _warn_of_mistakes(config: Path | None) -> None:
    try:
        running_settings_of(config)
    except InvalidSettings as error:
        click.echo("flowd: it could not start again with its current settings:", err=True)
        for problem in error.problems:
            click.echo(f"  {problem}", err=True)
