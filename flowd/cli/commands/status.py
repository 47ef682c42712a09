"""`flowd status`: what runs, asked over the control socket; exit codes as the LSB has them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Final

import click

from flowd.cli.options import config_option, data_dir_option, running_settings_of
from flowd.cli.running import ask_running
from flowd.cli.status_page import status_page
from flowd.errors import InvalidSettings, StoreError

# Of the API, which asks Redis meanwhile.
ANSWER_S: Final = 1.0


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
        answer["redis"] |= _told_by_api(answer["api"]) or _told_by_redis(config)
    click.echo(json.dumps(answer) if output == "json" else status_page(answer))
    if data_dir is None:
        _warn_of_mistakes(config)


def _told_by_api(url: str) -> dict[str, Any]:
    """Which server is the primary now, and its replicas; empty where the API is not ready. It knows
    them already: to load what speaks to Redis takes five times as long as all else."""
    from flowd.client.calls import Call
    from flowd.client.connections import FAILURES, Connections

    try:
        with contextlib.closing(Connections(url, {})) as api:
            _, body = api.send(Call("GET", "/readyz", timeout_s=ANSWER_S))
        redis = json.loads(body)["checks"]["redis"]
        return {"primary": redis["primary"], "replicas": redis["replicas"]}
    except (*FAILURES, ValueError, LookupError, TypeError):
        return {}


def _told_by_redis(config: Path | None) -> dict[str, Any]:
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
