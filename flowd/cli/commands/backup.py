"""`flowd backup` and `flowd restore`: the data of the Redis that flowd runs itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from flowd.cli.options import config_option, data_dir_option, running_settings_of
from flowd.cli.running import data_dir_of

_folder = click.Path(file_okay=False, path_type=Path)


@click.command()
@config_option
@data_dir_option
@click.option("--keep", type=click.IntRange(min=1), help="Delete all but the newest KEEP backups.")
@click.argument("folder", type=_folder)
def backup(config: Path | None, data_dir: str | None, keep: int | None, folder: Path) -> None:
    """Back up the data of flowd while it runs.

    Makes a new folder in FOLDER, which is there once the backup is whole, and prints its path. A
    backup that fails leaves nothing behind.
    """
    from flowd.supervisor.backups import back_up

    source = _embedded_data(config, data_dir)
    with _refusals():
        click.echo(back_up(source, folder.absolute(), keep=keep))


@click.command()
@config_option
@data_dir_option
@click.option("--replace", is_flag=True, help="Move the data that are there aside, and keep them.")
@click.argument("backup", type=_folder)
def restore(config: Path | None, data_dir: str | None, replace: bool, backup: Path) -> None:
    """Put a backup back in its place.

    BACKUP is a folder that `flowd backup` has made. flowd must be stopped. Data that are there are
    only replaced with --replace.
    """
    from flowd.supervisor.backups import restore as put_back

    target = _embedded_data(config, data_dir)
    with _refusals():
        before = put_back(backup.absolute(), target, replace=replace)
    click.echo(f"{target} has the data of {backup}")
    if before is not None:
        click.echo(f"what was there before is in {before}; delete it when you need it no more")
    click.echo("start flowd with `flowd start`")


@contextmanager
def _refusals() -> Iterator[None]:
    from flowd.supervisor.backups import BackupRefused

    try:
        yield
    except BackupRefused as error:
        raise click.ClickException(str(error)) from error
    except OSError as error:
        named = f" {error.filename}" if error.filename else ""
        raise click.ClickException(f"cannot use{named}: {error.strerror}") from error


def _embedded_data(config: Path | None, data_dir: str | None) -> Path:
    """The data directory; refuses where the data of flowd are in a Redis it does not run."""
    from flowd.supervisor.asking import ControlUnavailable, ask
    from flowd.supervisor.bare_redis import ProbeResult, probe
    from flowd.supervisor.lock import is_held

    folder = data_dir_of(config, data_dir)
    if is_held(folder):
        try:
            used = ask(folder, "status")["redis"]
        except (ControlUnavailable, KeyError):
            return folder
        if used["mode"] == "external":
            raise _of_another(used["address"])
        return folder
    redis = running_settings_of(config, redis__data_dir=data_dir).redis
    found = redis.mode == "auto" and redis.port and probe((redis.host, redis.port))
    if redis.mode == "external" or redis.url is not None or found == ProbeResult.READY:
        raise _of_another(redis.address)
    return folder


def _of_another(address: str) -> click.ClickException:
    return click.ClickException(
        f"flowd keeps its data in the Redis at {address}, which it does not run itself; "
        "back up and restore that Redis with its own means"
    )
