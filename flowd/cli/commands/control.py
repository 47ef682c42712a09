"""`flowd stop`, `reload`, `restart`, `scale`: orders to the flowd that runs here."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import click

from flowd.cli.completing import complete_processes
from flowd.cli.exit_codes import BAD_SETTINGS, FAILED
from flowd.cli.numbers import WholeNumber
from flowd.cli.options import config_option, data_dir_option
from flowd.cli.running import ask_running, data_dir_of

_POLL_S = 0.05
# Beyond the grace period: the scheduler, and a server that writes its data.
_STOP_MARGIN_S = 40.0


@click.command()
@config_option
@data_dir_option
@click.option("--quick", is_flag=True, help="Do not wait for running nodes.")
@click.pass_context
def stop(ctx: click.Context, config: Path | None, data_dir: str | None, quick: bool) -> None:
    """Stop the running flowd gracefully, and return when it has ended."""
    from flowd.supervisor.lock import is_held

    answer = ask_running(ctx, config, data_dir, "stop", quick=quick)
    folder = data_dir_of(config, data_dir)
    deadline = time.monotonic() + answer["grace_s"] + _STOP_MARGIN_S
    while is_held(folder):
        if time.monotonic() > deadline:
            click.echo(
                "flowd: it has not stopped yet; `flowd status` shows what still runs", err=True
            )
            ctx.exit(FAILED)
        time.sleep(_POLL_S)
    click.echo("flowd has stopped")


@click.command()
@config_option
@data_dir_option
@click.pass_context
def reload(ctx: click.Context, config: Path | None, data_dir: str | None) -> None:
    """Read the settings again and replace every process by one that uses them.

    No request is refused meanwhile. A file with mistakes changes nothing, nor do handlers that
    cannot be imported.
    """
    answer = ask_running(ctx, config, data_dir, "reload")
    status = _wait_for_roll(ctx, config, data_dir)
    if refused := status.get("refused"):
        click.echo(f"nothing was changed: {refused}", err=True)
        ctx.exit(BAD_SETTINGS)
    _check_roll(ctx, status)
    kept = ", ".join(answer["kept"])
    if kept:
        kept = f", but for what takes a stop and a start: {kept}"
    click.echo(f"flowd runs with the new settings{kept}")


@click.command()
@click.argument("name", required=False, shell_complete=complete_processes)
@config_option
@data_dir_option
@click.pass_context
def restart(
    ctx: click.Context, name: str | None, config: Path | None, data_dir: str | None
) -> None:
    """Replace one process, such as worker-2, or all of them.

    Each goes when its successor is ready. For a new version of flowd, stop and start it.
    """
    ask_running(ctx, config, data_dir, "restart", name=name)
    _check_roll(ctx, _wait_for_roll(ctx, config, data_dir))
    click.echo(f"{name or 'every process'} was replaced")


@click.command()
@click.argument("workers", type=WholeNumber(0, 512))
@click.option("--group", help="The group of workers; default: those that belong to none.")
@config_option
@data_dir_option
@click.pass_context
def scale(
    ctx: click.Context,
    workers: int,
    group: str | None,
    config: Path | None,
    data_dir: str | None,
) -> None:
    """Change the number of workers, until the next reload or start.

    One that is too many finishes its nodes first.
    """
    ask_running(ctx, config, data_dir, "scale", workers=workers, group=group)
    click.echo(
        {0: "no worker is", 1: "1 worker is"}.get(workers, f"{workers} workers are") + " asked for"
    )


def _wait_for_roll(ctx: click.Context, config: Path | None, data_dir: str | None) -> dict[str, Any]:
    """The status when everything is as it was asked to be, or is not going to be."""
    answer: dict[str, Any] = ask_running(ctx, config, data_dir, "status")
    while answer.get("reloading") or answer["rolling"]:
        time.sleep(_POLL_S)
        answer = ask_running(ctx, config, data_dir, "status")
    return answer


def _check_roll(ctx: click.Context, answer: dict[str, Any]) -> None:
    if answer["roll_failure"]:
        click.echo(
            f"flowd: broken off, the old processes continue: {answer['roll_failure']}", err=True
        )
        ctx.exit(FAILED)
