"""`flowd status`: what runs, asked over the control socket; exit codes as the LSB has them."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Final

import click

from flowd.cli.exit_codes import UNAVAILABLE
from flowd.cli.options import config_option, data_dir_option, running_settings_of
from flowd.cli.running import ask_running
from flowd.cli.status_page import down, status_page
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

    Exits with 0 if it runs, 3 if not, 4 if it does not answer, and 69 while its Redis is down.
    """
    answer = ask_running(ctx, config, data_dir, "status", exact=True)
    told = _told_by_api(answer["api"]) if answer["state"] == "RUNNING" else {}
    answer["problems"] = [one["message"] for one in told.get("errors", ())]
    if data_dir is None and answer["redis"]["mode"] == "external":
        answer["redis"] |= _servers(told) or _told_by_redis(config)
    click.echo(json.dumps(answer) if output == "json" else status_page(answer))
    if data_dir is None:
        _warn_of_mistakes(config)
    if down(answer["processes"]):
        ctx.exit(UNAVAILABLE)


def _told_by_api(url: str) -> dict[str, Any]:
    """Whether flowd is ready, as the API has it; empty where that does not answer."""
    from flowd.client.calls import Call
    from flowd.client.connections import FAILURES, Connections

    try:
        with contextlib.closing(Connections(url, {})) as api:
            _, body = api.send(Call("GET", "/readyz", timeout_s=ANSWER_S))
        told = json.loads(body)
    except (*FAILURES, ValueError):
        return {}
    return told if isinstance(told, dict) else {}


def _servers(told: dict[str, Any]) -> dict[str, Any]:
    """Which server is the primary now, and its replicas; empty where the API is not ready. It knows
    them already: to load what speaks to Redis takes five times as long as all else."""
    try:
        redis = told["checks"]["redis"]
        return {"primary": redis["primary"], "replicas": redis["replicas"]}
    except (LookupError, TypeError):
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
