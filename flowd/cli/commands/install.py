"""`flowd install` and `flowd uninstall`: what runs here as a service of this machine."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import click

from flowd.installation import InstallationFailed
from flowd.installation.places import Places, find_places

_root_option = click.option(
    "--root",
    metavar="DIR",
    type=click.Path(file_okay=False, path_type=Path),
    help="The same files below DIR; no user, no systemd, and nobody has to be root.",
)


@click.command()
@_root_option
def install(root: Path | None) -> None:
    """Install flowd as a service of this machine, or upgrade the one that is there.

    Puts the program into /opt/flowd and `flowd` on the PATH, and makes the user flowd, the settings
    /etc/flowd/flowd.toml and a systemd unit. Settings and data are kept. Needs root.
    """
    from flowd.installation.installing import install

    _carry_out(root, install)


@click.command()
@_root_option
@click.option("--purge", is_flag=True, help="Remove settings, data, logs and the user, too.")
def uninstall(root: Path | None, purge: bool) -> None:
    """Take the installed flowd off this machine; its settings and data stay."""
    from flowd.installation.installing import uninstall

    _carry_out(root, lambda places: uninstall(places, purge=purge))


def _carry_out(root: Path | None, order: Callable[[Places], str]) -> None:
    try:
        click.echo(order(find_places(root)))
    except InstallationFailed as error:
        raise click.ClickException(str(error)) from error
