"""`flowd status`: what runs, asked over the control socket; exit codes as the LSB has them."""

from __future__ import annotations

import contextlib
import json
import socket
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
    answer["elsewhere"] = _workers_elsewhere(answer, told)
    if data_dir is None and answer["redis"]["mode"] == "external":
        answer["redis"] |= _servers(told) or _told_by_redis(config)
    click.echo(json.dumps(answer) if output == "json" else status_page(answer))
    if data_dir is None:
        _warn_of_mistakes(config)
    if down(answer["processes"]):
        ctx.exit(UNAVAILABLE)


def _workers_elsewhere(answer: dict[str, Any], told: dict[str, Any]) -> list[dict[str, Any]]:
    """The workers of the same Redis that others have started, by host: how many there are, and
    which queues they read. None of them where there is no FLOWD_TOKEN and the API asks for one."""
    own = {one["pid"] for one in answer["processes"] if one["role"] == "worker" and one["pid"]}
    live = told.get("checks", {}).get("workers", {}).get("live", 0)
    if live <= len(own):
        return []
    here, hosts = socket.gethostname(), dict[str, list[dict[str, Any]]]()
    for one in _told_by_api(answer["api"], "/workers").get("workers", ()):
        if one["alive"] and one["host"] and (one["host"] != here or one["pid"] not in own):
            hosts.setdefault(one["host"], []).append(one)
    return [
        {
            "host": host,
            "workers": len(workers),
            "queues": sorted({queue for one in workers for queue in one["queues"] or ()}),
        }
        for host, workers in sorted(hosts.items())
    ]


def _told_by_api(url: str, path: str = "/readyz") -> dict[str, Any]:
    """What the API answers, such as whether flowd is ready; empty where it does not."""
    from flowd.client.calls import Call, base_headers
    from flowd.client.connections import FAILURES, Connections

    try:
        with contextlib.closing(Connections(url, base_headers(None))) as api:
            _, body = api.send(Call("GET", path, timeout_s=ANSWER_S))
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
