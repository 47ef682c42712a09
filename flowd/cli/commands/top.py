"""`flowd top`: the page of `flowd status`, again and again until q or Ctrl-C."""

from __future__ import annotations

import contextlib
import os
import select
import sys
import termios
import tty
from collections.abc import Iterator
from pathlib import Path

import click

from flowd.cli.numbers import Number
from flowd.cli.options import config_option, data_dir_option
from flowd.cli.running import ask_running, data_dir_of
from flowd.cli.status_page import status_page


@click.command()
@config_option
@data_dir_option
@click.option(
    "--interval",
    type=Number(0.1, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two updates.",
)
@click.pass_context
def top(ctx: click.Context, config: Path | None, data_dir: str | None, interval: float) -> None:
    """Show the processes and their CPU and memory, live, until q or Ctrl-C; in a pipe, once."""
    page = status_page(ask_running(ctx, config, data_dir, "status"))
    if not sys.stdout.isatty():
        click.echo(page)
        return
    with contextlib.suppress(KeyboardInterrupt):
        _show_until_gone(data_dir_of(config, data_dir), page, interval)
        # Still here: flowd is not. This says so, in a terminal that is itself again.
        ask_running(ctx, config, data_dir, "status")


def _show_until_gone(folder: Path, page: str, interval: float) -> None:
    """Returns when flowd no longer answers; KeyboardInterrupt is a person who has seen enough."""
    from rich.live import Live
    from rich.text import Text

    from flowd.supervisor.asking import ControlUnavailable, ask

    def shown(page: str) -> Text:
        return Text(page, no_wrap=True, overflow="ellipsis")

    with _reading_keys(), Live(shown(page), screen=True, auto_refresh=False) as live:
        while True:
            live.update(shown(page), refresh=True)
            _wait_for_q(interval)
            try:
                page = status_page(ask(folder, "status"))
            except ControlUnavailable:
                return


@contextlib.contextmanager
def _reading_keys() -> Iterator[None]:
    """Keys arrive as they are pressed, and are not shown."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    tty.setcbreak(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _wait_for_q(interval: float) -> None:
    watched = [sys.stdin] if sys.stdin.isatty() else []
    if select.select(watched, [], [], interval)[0] and os.read(0, 1) in (b"q", b"Q", b""):
        raise KeyboardInterrupt
