"""`flowd logs`: the log file, where there is one, of one process or all."""

from __future__ import annotations

import json
import os
import sys
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import click

from flowd.cli.exit_codes import FAILED
from flowd.cli.options import config_option, running_settings_of
from flowd.owned_folder import follow_own_links

_POLL_S = 0.2


@click.command()
@click.argument("name", required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(0),
    default=100,
    show_default=True,
    help="How many of the last.",
)
@config_option
@click.pass_context
def logs(
    ctx: click.Context, name: str | None, follow: bool, lines: int, config: Path | None
) -> None:
    """Show the last lines of the log file, of one process (worker-2) or of all."""
    path = running_settings_of(config).log.file
    if path is None:
        click.echo(
            "flowd writes its log to stderr: to the terminal of `flowd start`, or to the journal, "
            "see `journalctl -u flowd`; set log.file to have it in a file",
            err=True,
        )
        ctx.exit(FAILED)
    try:
        file = _open(path)
    except FileNotFoundError:
        click.echo(f"there is no {path} yet; flowd makes it when it starts", err=True)
        ctx.exit(FAILED)
    except OSError as error:
        click.echo(f"cannot read {path}: {error.strerror}", err=True)
        ctx.exit(FAILED)
    with file:
        for line in deque((one for one in file if _is_of(one, name)), maxlen=lines):
            sys.stdout.buffer.write(line)
        place = file.tell()
    sys.stdout.flush()
    if follow:
        _follow(path, place, name)


def _open(path: Path) -> BinaryIO:
    """The folder may be the service's, and the reader root: a link of the service leads nowhere."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
    return os.fdopen(os.open(follow_own_links(path), flags), "rb")


def _follow(path: Path, place: int, name: str | None) -> None:
    try:
        for line in _new_lines(path, place):
            if _is_of(line, name):
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        return


def _new_lines(path: Path, place: int) -> Iterator[bytes]:
    """Whole lines from `place` on, also of the files that take this one's name later."""
    file = _open(path)
    file.seek(place)
    rest = b""
    while True:
        # Looked at before reading: what was written to the old file until then is not missed.
        is_current = _is_same(file.fileno(), path)
        data = file.read()
        *lines, rest = (rest + data).split(b"\n")
        yield from (line + b"\n" for line in lines)
        if not is_current and path.exists():
            file.close()
            file = _open(path)
        elif not data:
            time.sleep(_POLL_S)


def _is_same(descriptor: int, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(descriptor), path.stat())
    except FileNotFoundError:
        return False


def _is_of(line: bytes, name: str | None) -> bool:
    if name is None:
        return True
    try:
        return bool(json.loads(line).get("process") == name)
    except (ValueError, AttributeError):
        return False
