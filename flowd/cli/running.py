"""Ask the flowd that runs here; where none does, say so and leave with the LSB's exit code."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from flowd.cli.at_home import ANSWER_S
from flowd.cli.exit_codes import NOT_RUNNING, UNAVAILABLE, UNKNOWN_STATE, exit_code_of_code
from flowd.cli.options import config_of_running, running_settings_of
from flowd.config import ApiSettings
from flowd.config.loading import config_file, find_data_dir, load_settings
from flowd.errors import InvalidSettings
from flowd.home import DEFAULT_DATA_DIR, find_foreign

_ANY_ADDRESS = ("0.0.0.0", "::")
_ADDRESS = ("host", "port", "socket")


def data_dir_of(config: Path | None, data_dir: str | None) -> Path:
    """Where the flowd that is meant keeps its lock; a flag is enough, also beside a broken file.

    A flowd that runs is found although its file was broken since; where none does, that is raised.
    """
    from flowd.supervisor.lock import is_held

    if data_dir is not None:
        return _absolute(data_dir)
    try:
        return running_settings_of(config).redis.data_dir
    except InvalidSettings:
        folder = find_data_dir(config_of_running(config))
        if not is_held(folder):
            raise
        return folder


def _absolute(data_dir: str) -> Path:
    try:
        return Path(data_dir).expanduser().absolute()
    except RuntimeError:
        # Nobody's home is known: a container's user has no entry in passwd, say.
        return Path(data_dir).absolute()


def find_api(has_token: bool) -> str:
    """Where the API of the flowd of this folder listens, or of the nearest above it, or the one of
    the service of this machine.

    The control socket knows best; where nobody answers it, the settings do. `has_token`: what is
    found is sent a token, and so comes from somebody who may have it. Ends the program where a
    port is not known. Raises InvalidSettings where nobody answers and the settings have mistakes:
    the address they mean is another one than the default.
    """
    from flowd.supervisor.asking import ControlUnavailable, ask

    config = config_of_running(Path(named) if (named := os.environ.get("FLOWD_CONFIG")) else None)
    if has_token:
        _check_owner(config)
    mistakes = None
    try:
        settings = load_settings(config)
        api, folder = settings.api, settings.redis.data_dir
    except InvalidSettings as error:
        mistakes, api, folder = error, ApiSettings(), find_data_dir(config)
    # An address in the environment was meant for this very command; port 0 is none.
    is_meant = any(f"FLOWD_API__{one.upper()}" in os.environ for one in _ADDRESS)
    if not is_meant or (api.port == 0 and api.socket is None):
        try:
            return str(ask(folder, "status", timeout_s=ANSWER_S)["api"])
        except (ControlUnavailable, KeyError):
            pass
    if mistakes is not None:
        raise mistakes
    return _url_of(api, folder)


def _url_of(api: ApiSettings, folder: Path) -> str:
    if api.socket is not None:
        return f"unix:{api.socket}"
    if api.port == 0:
        click.echo(f"flowd: it does not run in {folder}; start it with `flowd start`", err=True)
        click.get_current_context().exit(UNAVAILABLE)
    host = "localhost" if api.host in _ANY_ADDRESS else api.host
    return f"http://[{host}]:{api.port}" if ":" in host else f"http://{host}:{api.port}"


def _check_owner(config: Path | None) -> None:
    """A file somebody else has put into this folder says where the token goes, otherwise."""
    file = config_file(config)
    if foreign := find_foreign(file, file.parent / DEFAULT_DATA_DIR):
        message = f"{foreign} belongs to another user, and a token is not sent where it says"
        raise click.UsageError(f"{message}; name the flowd with --url")


def ask_running(
    ctx: click.Context,
    config: Path | None,
    data_dir: str | None,
    command: str,
    **arguments: Any,
) -> dict[str, Any]:
    """The answer of its supervisor. Ends the program where there is none, or a refusal."""
    from flowd.supervisor.asking import ControlUnavailable, ask
    from flowd.supervisor.lock import is_held

    folder = data_dir_of(config, data_dir)
    try:
        answer = ask(folder, command, **arguments)
    except ControlUnavailable as error:
        if isinstance(error.__cause__, PermissionError):
            message = f"flowd: only root and the user of flowd may ask whether it runs in {folder}"
            click.echo(message, err=True)
            ctx.exit(UNKNOWN_STATE)
        if is_held(folder):
            click.echo(f"flowd runs in {folder}, but does not answer; its log says why", err=True)
            ctx.exit(UNKNOWN_STATE)
        click.echo(f"flowd does not run in {folder}; start it with `flowd start`", err=True)
        ctx.exit(NOT_RUNNING)
    if "error" in answer:
        click.echo(f"flowd: {answer['error']}", err=True)
        ctx.exit(exit_code_of_code(answer.get("code", "")))
    return answer
