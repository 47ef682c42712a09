"""`flowd status`: what runs, asked over the control socket; exit codes as the LSB has them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from flowd.cli.exit_codes import NOT_RUNNING, UNKNOWN_STATE
from flowd.cli.options import config_option, data_dir_option, settings_of

_COLUMNS = ("NAME", "ROLE", "PID", "STATE", "UPTIME", "RESTARTS", "LAST EXIT")


@click.command()
@config_option
@data_dir_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.pass_context
def status(ctx: click.Context, config: Path | None, data_dir: str | None, output: str) -> None:
    """Show the processes of the flowd that runs here. Exits 0 running, 3 not running, 4 unknown."""
    from flowd.supervisor.control import ControlUnavailable, ask
    from flowd.supervisor.lock import is_held

    folder = settings_of(config, redis__data_dir=data_dir).redis.data_dir
    try:
        answer = ask(folder, "status")
    except ControlUnavailable:
        if is_held(folder):
            click.echo(f"flowd runs in {folder}, but does not answer", err=True)
            ctx.exit(UNKNOWN_STATE)
        click.echo(f"flowd does not run in {folder}; start it with `flowd start`", err=True)
        ctx.exit(NOT_RUNNING)
    click.echo(json.dumps(answer) if output == "json" else _page(answer))


def _page(answer: dict[str, Any]) -> str:
    redis = answer["redis"]
    address = redis["address"] or redis["socket"]
    head = (
        f"flowd (pid {answer['pid']}) is {answer['state']} for {_duration(answer['uptime_s'])}\n"
        f"API {answer['api']}, Redis {redis['mode']} at {address}, data in {answer['data_dir']}\n"
    )
    return head + "\n" + _table([_COLUMNS, *(_row(one) for one in answer["processes"])])


def _row(process: dict[str, Any]) -> tuple[str, ...]:
    uptime_s = process["uptime_s"]
    return (
        process["name"],
        process["role"],
        str(process["pid"] or "-"),
        process["state"],
        "-" if uptime_s is None else _duration(uptime_s),
        str(process["restarts"]),
        process["last_exit"] or "-",
    )


def _table(rows: list[tuple[str, ...]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(_COLUMNS))]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join(lines)


def _duration(seconds: float) -> str:
    """`4.2s`, `3m12s`, `5h07m`, `2d03h`."""
    if seconds < 60:
        return f"{seconds:.1f}s"
    minutes, left_s = divmod(int(seconds), 60)
    if minutes < 60:
        return f"{minutes}m{left_s:02d}s"
    hours, minutes = divmod(minutes, 60)
    if hours < 24:
        return f"{hours}h{minutes:02d}m"
    return f"{hours // 24}d{hours % 24:02d}h"
