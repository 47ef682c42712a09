"""Ask the flowd that runs here; where none does, say so and leave with the LSB's exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from flowd.cli.exit_codes import NOT_RUNNING, UNKNOWN_STATE, exit_code_of_code
from flowd.cli.options import settings_of


def data_dir_of(config: Path | None, data_dir: str | None) -> Path:
    """Where the flowd that is meant keeps its lock; a flag is enough, also beside a broken file."""
    if data_dir is not None:
        return Path(data_dir).expanduser().absolute()
    return settings_of(config, redis__data_dir=data_dir).redis.data_dir


def ask_running(
    ctx: click.Context,
    config: Path | None,
    data_dir: str | None,
    command: str,
    **arguments: Any,
) -> dict[str, Any]:
    """The answer of its supervisor. Ends the program where there is none, or a refusal."""
    from flowd.supervisor.control import ControlUnavailable, ask
    from flowd.supervisor.lock import is_held

    folder = data_dir_of(config, data_dir)
    try:
        answer = ask(folder, command, **arguments)
    except ControlUnavailable as error:
        if isinstance(error.__cause__, PermissionError):
            told = f"whether flowd runs in {folder} only root and the user it runs as may ask"
            click.echo(told, err=True)
            ctx.exit(UNKNOWN_STATE)
        if is_held(folder):
            click.echo(f"flowd runs in {folder}, but does not answer", err=True)
            ctx.exit(UNKNOWN_STATE)
        click.echo(f"flowd does not run in {folder}; start it with `flowd start`", err=True)
        ctx.exit(NOT_RUNNING)
    if "error" in answer:
        click.echo(f"flowd: {answer['error']}", err=True)
        ctx.exit(exit_code_of_code(answer.get("code", "")))
    return answer
