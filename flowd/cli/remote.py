"""What the commands share that speak to a flowd over HTTP: where it is, ids, errors, output."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from flowd.cli.exit_codes import FAILED, INTERRUPTED, TIMED_OUT, UNAVAILABLE

if TYPE_CHECKING:
    from flowd.client import ApiError, Client

LATEST: Final = "@latest"
# A prefix is looked for among so many of the newest executions.
PREFIX_SEARCH_MAX: Final = 10_000
_WHOLE_ID = re.compile(r"[0-9a-f]{24}")

url_option = click.option(
    "--url", envvar="FLOWD_URL", help="Where flowd is; http://127.0.0.1:8000 by default."
)
output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "id"]), default="table"
)
execution_argument = click.argument("execution", metavar="ID")


@contextmanager
def connected(url: str | None) -> Iterator[Client]:
    """A client; what goes wrong is said on stderr, and ends the command with its exit code.

    The token is in FLOWD_TOKEN: on a command line everybody could read it.
    """
    from flowd.client import ApiError, Client, ConnectionFailed

    try:
        with Client(url) as client:
            yield client
    except ApiError as error:
        _say_refusal(error)
        sys.exit(FAILED)
    except ConnectionFailed as error:
        click.echo(f"flowd: {error}; is it running? `flowd status`", err=True)
        sys.exit(UNAVAILABLE)
    except TimeoutError as error:
        click.echo(f"flowd: {error}", err=True)
        sys.exit(TIMED_OUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read this has seen enough.
        sys.stderr.close()
        sys.exit(0)


def _say_refusal(error: ApiError) -> None:
    problems = [one for one in error.errors if one.get("path")]
    if not problems:
        click.echo(f"flowd: {error.detail}", err=True)
        return
    click.echo(f"flowd: refused ({error.code}):", err=True)
    for one in problems:
        click.echo(f"  {one['path']}: {one['message']}", err=True)


def find_id(client: Client, text: str) -> str:
    """The whole id for `@latest` or for the beginning of exactly one id."""
    if _WHOLE_ID.fullmatch(text):
        return text
    rows = client.list(count_max=1 if text == LATEST else PREFIX_SEARCH_MAX, fields="execution_id")
    ids = (str(row["execution_id"]) for row in rows)
    found = list(islice((one for one in ids if text in (LATEST, one[: len(text)])), 2))
    if not found and text == LATEST:
        raise click.ClickException("there is no execution yet; `flowd run FILE` makes one")
    if not found:
        raise click.ClickException(f"no execution has an id that begins with {text!r}")
    if len(found) > 1 and text != LATEST:
        raise click.ClickException(f"{text!r} begins more than one id: {', '.join(found)} …")
    return found[0]


def show_json(value: Any) -> None:
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))


def show_rows(
    rows: Iterable[Mapping[str, Any]],
    output: str,
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]],
    key: str = "execution_id",
) -> None:
    """Rows as a table, as JSON, or only what names each of them."""
    if output == "json":
        show_json(list(rows))
    elif output == "id":
        for row in rows:
            click.echo(row[key])
    else:
        cells = [[str(column(row)) for column in columns.values()] for row in rows]
        show_table(list(columns), cells)


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False)
    if not console.is_terminal:
        lines = [head, *rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
        for line in lines:
            click.echo("  ".join(map(str.ljust, line, widths)).rstrip())
        return
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in head:
        table.add_column(name, overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    console.print(table)


STYLES: Mapping[str, str] = {
    "PENDING": "dim",
    "QUEUED": "cyan",
    "RUNNING": "yellow",
    "RETRYING": "magenta",
    "PAUSED": "blue",
    "COMPLETED": "green",
    "FAILED": "red",
    "CANCELLED": "dim",
}


def clock(ms: int | None) -> str:
    """A time of this machine's time zone."""
    if ms is None:
        return "-"
    return datetime.fromtimestamp(ms / 1000).astimezone().strftime("%Y-%m-%d %H:%M:%S")


def span(ms: int | None) -> str:
    """`12ms`, `3.4s`, `2m05s`, `3h07m`."""
    if ms is None:
        return "-"
    if ms < 1000:
        return f"{ms}ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f}s"
    minutes, left_ms = divmod(ms, 60_000)
    if minutes < 60:
        return f"{minutes}m{left_ms // 1000:02d}s"
    return f"{minutes // 60}h{minutes % 60:02d}m"
