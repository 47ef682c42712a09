"""`flowd config`: check the settings, show where each comes from, write a file to start with."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import click

from flowd.cli.exit_codes import FAILED
from flowd.cli.options import config_option, data_dir_option, host_option, port_option
from flowd.config import Settings
from flowd.config.loading import ignored_variables, list_settings, load_with_origins
from flowd.config.places import require_places
from flowd.home import DEFAULT_DATA_DIR, DEFAULT_FILE

_COLUMNS = ("SETTING", "FROM", "VALUE")
_DEFAULT = "default"
_ASYNCHRONOUS = (
    "a failover loses what has not reached the replica that becomes the primary; with "
    "redis.replicas = 1 nothing is acknowledged before one has it"
)


@click.group()
def config() -> None:
    """Check, show or write the settings."""


def _as_started(command: Callable[..., None]) -> Callable[..., None]:
    """The options of `flowd start`: what it would run with is what is looked at."""
    for option in (
        data_dir_option,
        click.option("--workers", type=int, help="Number of worker processes."),
        port_option,
        host_option,
        config_option,
    ):
        command = option(command)
    return command


@config.command()
@_as_started
@click.option("--connect", is_flag=True, help="Look at the Redis, and say what could lose work.")
@click.option("-q", "--quiet", is_flag=True, help="Print nothing on success.")
def check(config: Path | None, connect: bool, quiet: bool, **flags: Any) -> None:
    """Check whether flowd can start with these settings, and with the handlers they name.

    Exits with 0, or with 78 and a list of everything that is wrong. With --connect also with 69
    where the Redis cannot be used.
    """
    settings, origins = _load(config, flags)
    require_places(settings)
    _check_exposure(settings)
    _check_handlers(settings)
    if connect:
        _check_redis(settings, is_quiet=quiet)
    if quiet:
        return
    for warning in ignored_variables(settings.handlers.folder or Path.cwd()):
        click.echo(f"flowd: {warning}", err=True)
    given = list(_changed(settings, origins))
    if config is None and not Path(DEFAULT_FILE).exists():
        click.echo(f"there is no {DEFAULT_FILE} in this folder")
    click.echo(f"the settings are valid: {len(given)} are given, the others have their default")
    if given:
        click.echo("\n" + _table([_COLUMNS, *given]))


def _changed(settings: Settings, origins: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    """What was given and is not the default anyhow, as in a file that `config init` has written."""
    defaults = {key: value for key, _, value in _rows(Settings(), {})}
    if settings.handlers.folder is not None:
        defaults["redis.data_dir"] = str(settings.handlers.folder / DEFAULT_DATA_DIR)
    for key, origin, value in _rows(settings, origins):
        if origin != _DEFAULT and value != defaults[key]:
            yield key, origin, value


def _check_exposure(settings: Settings) -> None:
    from flowd.supervisor.listener import address_to_bind, require_tokens

    require_tokens(address_to_bind(settings.api), settings.redis.data_dir)


def _check_handlers(settings: Settings) -> None:
    from flowd.handlers.trial_import import try_handlers

    try_handlers(settings)


def _check_redis(settings: Settings, *, is_quiet: bool) -> None:
    from flowd.replicas import describe
    from flowd.store.primary import locate_primary
    from flowd.supervisor.bare_redis import ProbeResult, probe
    from flowd.supervisor.embedded_server import join_embedded, look_at

    settings = join_embedded(settings)
    redis = settings.redis
    may_be_own = redis.mode != "external" and redis.url is None and redis.socket_path is None
    # `flowd start` takes one that answers there in place of its own.
    if may_be_own and probe((redis.host, redis.port)) is ProbeResult.NOTHING:
        click.echo("flowd start will run a Redis of its own, which keeps what it acknowledges")
        return
    fitness = look_at(settings)
    if not is_quiet:
        where = locate_primary(settings.redis).address
        told = f", replicas: {describe(fitness.replicas)}" if fitness.replicas else ""
        click.echo(f"the Redis is {fitness.server} at {where}{told}")
    risks = fitness.risks
    if not settings.redis.replicas and (fitness.replicas or settings.redis.sentinels):
        risks += (_ASYNCHRONOUS,)
    for risk in risks:
        click.echo(f"WARNING this Redis may lose work: {risk}", err=True)


@config.command()
@_as_started
@click.option("--origin", is_flag=True, help="Show where each value comes from.")
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def show(config: Path | None, origin: bool, output: str, **flags: Any) -> None:
    """Show every setting with its value. Secrets are not shown."""
    settings, origins = _load(config, flags)
    if output == "json":
        shown = {
            key: {"value": value, "origin": origins.get(key, _DEFAULT)}
            for key, value in list_settings(settings)
        }
        click.echo(json.dumps(shown, default=str))
        return
    rows = [_COLUMNS, *_rows(settings, origins)]
    click.echo(_table(rows if origin else [(key, value) for key, _, value in rows]))


@config.command()
@click.argument("path", type=click.Path(path_type=Path), default=DEFAULT_FILE)
@click.pass_context
def init(ctx: click.Context, path: Path) -> None:
    """Write a settings file with every setting, its default and its meaning.

    It has every setting, its default and what it means. A file that is there already is left as
    it is.
    """
    from flowd.config.reference import settings_file

    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(settings_file())
    except FileExistsError:
        click.echo(f"flowd: {path} exists already and was not changed; name another PATH", err=True)
        ctx.exit(FAILED)
    except OSError as error:
        click.echo(f"flowd: cannot write {path}: {error.strerror or error}", err=True)
        ctx.exit(FAILED)
    click.echo(f"wrote {path}; `flowd config check --config {path}` checks it after your changes")


def _load(config: Path | None, flags: dict[str, Any]) -> tuple[Settings, dict[str, str]]:
    return load_with_origins(
        config,
        {
            "api.host": flags["host"],
            "api.port": flags["port"],
            "workers.count": flags["workers"],
            "redis.data_dir": flags["data_dir"],
        },
    )


def _rows(settings: Settings, origins: dict[str, str]) -> Iterator[tuple[str, str, str]]:
    for key, value in list_settings(settings):
        yield key, origins.get(key, _DEFAULT), _shown(value)


def _shown(value: Any) -> str:
    """As it is written in the file, without the quotes of a text; `-` is not set."""
    if value is None:
        return "-"
    return json.dumps(value) if isinstance(value, bool | tuple) else str(value)


def _table(rows: Sequence[tuple[str, ...]]) -> str:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return "\n".join("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
