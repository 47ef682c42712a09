"""What the commands share that speak to a flowd over HTTP: where it is, ids, errors, output."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import click

from flowd.cli.completing import complete_executions
from flowd.cli.exit_codes import FAILED, INTERRUPTED, TIMED_OUT, UNAVAILABLE, exit_code_of_status
from flowd.cli.profiles import locate, profile_option
from flowd.cli.times import clock
from flowd.workflow.report import quote

if TYPE_CHECKING:
    from flowd.client import ApiError, Client

LATEST: Final = "@latest"
_WHOLE_ID = re.compile(r"[0-9a-f]{24}")
_BEGINNING = re.compile(r"[0-9a-f]{1,23}")
# What a terminal would obey: control characters, and those that turn the direction of the text.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u200e\u200f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")

_TOKEN = "flowd.token"


def _take_token(ctx: click.Context, _option: click.Parameter, token: str | None) -> None:
    if token is not None:
        from setproctitle import setproctitle

        # Everybody may read a command line: from here on it is not in this one.
        setproctitle(ctx.command_path)
        ctx.meta[_TOKEN] = token


_url_option = click.option(
    "--url",
    envvar="FLOWD_URL",
    help="URL of flowd; default: the flowd of this folder or of one above it, else the service.",
)
token_option = click.option(
    "--token",
    expose_value=False,
    callback=_take_token,
    help="Token of the API. FLOWD_TOKEN is safer: other users may see a command line.",
)


def server_options(command: Callable[..., None]) -> Callable[..., None]:
    """Where flowd is and what opens it; the command is given `url`, for `connected`."""
    return _url_option(profile_option(token_option(command)))


output_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json", "id"]), default="table"
)
table_or_json_option = click.option(
    "-o", "--output", type=click.Choice(["table", "json"]), default="table"
)
json_option = click.option("--json", "output", flag_value="json", help="The same as -o json.")
execution_argument = click.argument("execution", metavar="ID", shell_complete=complete_executions)


def of_an_execution(command: Callable[..., None]) -> Callable[..., None]:
    """Of one execution, over HTTP; the command is given `url`, `output` and `execution`."""
    return server_options(output_option(execution_argument(command)))


@contextmanager
def connected(url: str | None, file: str | None = None) -> Iterator[Client]:
    """A client; what goes wrong is said on stderr, and ends the command with its exit code.

    What flowd refuses of a workflow is said with its place in the `file` it came from.
    """
    from flowd.client import ApiError, Client, ConnectionFailed
    from flowd.client.errors import OtherServer

    ctx = click.get_current_context()
    token = ctx.meta.get(_TOKEN)
    found = locate(ctx, url, has_token=bool(token or os.environ.get("FLOWD_TOKEN")))
    try:
        client = Client(found.url, token or found.token)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    try:
        with client:
            yield client
    except ApiError as error:
        _say_refusal(error, file)
        sys.exit(exit_code_of_status(error.status))
    except ConnectionFailed as error:
        hint = "" if isinstance(error, OtherServer) else "; is it running? `flowd status`"
        click.echo(f"flowd: {error}{hint}", err=True)
        sys.exit(UNAVAILABLE)
    except TimeoutError as error:
        click.echo(f"flowd: {error}", err=True)
        sys.exit(TIMED_OUT)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except BrokenPipeError:
        # Whoever read this has seen enough. What is left to write goes nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _say_refusal(error: ApiError, file: str | None) -> None:
    is_of_file = error.code == "invalid_workflow" and file not in (None, "-")
    if not (is_of_file and error.errors) and not any(one.get("path") for one in error.errors):
        hint = "; give it in FLOWD_TOKEN" if error.status == 401 else ""
        click.echo(f"flowd: {plain(as_commands(error.detail))}{hint}", err=True)
        return
    click.echo(f"flowd: refused ({error.code}):", err=True)
    if is_of_file:
        from flowd.cli.documents import findings_in, problems_of

        for finding in findings_in(str(file), problems_of(error)):
            click.echo(plain(as_commands(f"  {finding}")), err=True)
        return
    for problem in error.errors:
        # Which option that is says its name; where it stands in a URL is nothing to a command.
        path = re.sub(r"^query\.(\w+)(\.\d+)?$", r"\1", problem.get("path") or "")
        place = f"{path}: " if path else ""
        click.echo(plain(f"  {place}{as_commands(problem['message'])}"), err=True)


# What a message of the API tells its clients to do, and the command that does it.
_CALLS: Final = (
    (re.compile(r"POST /workflow/trigger/(\w+)"), r"`flowd trigger \1`"),
    (re.compile(r"POST /workflows/(\w+)/nodes/([\w.-]+)/signal"), r"`flowd approve \1 \2`"),
    (re.compile(r"POST /workflows/(\w+)/(\w+)"), r"`flowd \2 \1`"),
    (
        re.compile(r"GET /workflows/(\w+)/nodes/([\w-]+)/items\?state=FAILED"),
        r"`flowd items \1 \2 --state failed`",
    ),
    (re.compile(r"GET /workflows/(\w+)/nodes/<node_id>"), r"`flowd results \1 NODE`"),
    (re.compile(r"GET /workflows/(\w+)/nodes"), r"`flowd get \1`"),
    (re.compile(r"GET /workflows/(\w+)/explain"), r"`flowd explain \1`"),
    (re.compile(r"GET /dead-letters"), r"`flowd dlq list`"),
    (re.compile(r"GET /definitions\b(?!/)"), r"`flowd definitions ls`"),
    (re.compile(r"GET /schedules"), r"`flowd schedules ls`"),
    (re.compile(r"GET /limits"), r"`flowd limits ls`"),
    (re.compile(r"PUT /limits/([\w.-]+) with another max"), r"`flowd limits put \1 --max 1`"),
    (re.compile(r"name the node to begin with$"), r"\g<0>: `--from NODE`"),
    (re.compile(r"with `force`"), "with `--force`"),
    # Files are checked with the handlers there are now, and flowd runs with those of its start.
    (
        re.compile(r"(?<=')(; the handlers are )"),
        r"; one that was added since flowd started is there after `flowd reload`\1",
    ),
)


def as_commands(text: str) -> str:
    """A message of the API for somebody who does not speak HTTP to it."""
    for call, command in _CALLS:
        text = call.sub(command, text)
    return text


def find_id(client: Client, text: str) -> str:
    """The whole id for `@latest` or for the beginning of exactly one id."""
    if _WHOLE_ID.fullmatch(text):
        return text
    ids = list(islice(_ids_that_begin(client, text), 2))
    if not ids and text == LATEST:
        raise click.ClickException("there is no execution yet; start one with `flowd run FILE`")
    if not ids:
        raise click.ClickException(f"no execution has an id that begins with {quote(text)}")
    if len(ids) > 1:
        raise click.ClickException(f"{quote(text)} begins more than one id: {', '.join(ids)} …")
    return ids[0]


def _ids_that_begin(client: Client, text: str) -> Iterator[str]:
    """The newest first; ids sort by age, so that nothing is behind one that sorts before. The
    latest is no child: those begin as their parent does, in any order."""
    is_latest = text == LATEST
    if not (is_latest or _BEGINNING.fullmatch(text)):
        return
    count_max = 1 if is_latest else None
    for row in client.list(count_max=count_max, roots=is_latest or None, fields="execution_id"):
        execution_id = str(row["execution_id"])
        if is_latest or execution_id.startswith(text):
            yield execution_id
        elif execution_id < text:
            return


def plain(text: str) -> str:
    """In one line, with nothing a terminal would obey: names and errors come from anywhere."""
    return _OBEYED.sub(lambda match: match[0].encode("unicode_escape").decode(), text)


def show_block(title: str, text: str) -> None:
    """Lines as they are, indented, below a title where there is one."""
    lines = [title] if title else []
    lines += [f"    {one}" for one in text.splitlines()]
    click.echo("\n".join(map(plain, lines)))


def short(value: Any, chars_max: int) -> str:
    """A value as JSON in one line, cut where it is too long."""
    text = plain(json.dumps(value, ensure_ascii=False))
    return text if len(text) <= chars_max else text[:chars_max] + "…"


def show_json(value: Any) -> None:
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    # Where a character may be missing it is written as JSON has it.
    is_ascii = not encoding.lower().startswith("utf")
    lines = json.dumps(value, indent=2, ensure_ascii=is_ascii).split("\n")
    click.echo(
        "\n".join(_OBEYED.sub(lambda match: json.dumps(match[0])[1:-1], one) for one in lines)
    )


yes_option = click.option("-y", "--yes", is_flag=True, help="Do not ask for confirmation.")


def ask_first(question: str, refused: str) -> None:
    """Asks a person; who says no is told what was `refused`, and the command ends with 1.

    Where there is nobody to ask, it is not to be done without --yes.
    """
    if sys.stdin is None or not sys.stdin.isatty():
        raise click.UsageError("nobody is here to ask; --yes does it without")
    if not click.confirm(question, err=True):
        click.echo(refused, err=True)
        sys.exit(FAILED)


def show_done(
    answer: Mapping[str, Any], output: str, message: str, key: str = "execution_id"
) -> None:
    """What a command has done: for people on stderr, else as JSON or the id it was done to."""
    if output == "json":
        show_json(answer)
    elif output == "id":
        click.echo(answer[key])
    else:
        click.echo(message, err=True)


def show_rows(
    rows: Iterable[Mapping[str, Any]],
    output: str,
    columns: Mapping[str, Callable[[Mapping[str, Any]], str]],
    key: str = "execution_id",
    limit: int | None = None,
) -> None:
    """Rows as a table, as JSON, or only what names each of them.

    Where there are more than the `limit`, those behind are left out, and the table says so.
    """
    every = iter(rows)
    rows = islice(every, limit)
    if output == "json":
        show_json(list(rows))
    elif output == "id":
        for row in rows:
            click.echo(row[key])
    else:
        cells = [[str(column(row)) for column in columns.values()] for row in rows]
        show_table(list(columns), cells)
        if limit is not None and next(every, None) is not None:
            click.echo(f"these are the first {limit:,}; -n shows more", err=True)


def show_table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    rows = [list(map(plain, row)) for row in rows]
    if not (sys.stdout.isatty() or os.environ.get("FORCE_COLOR")):
        lines = [head, *rows]
        widths = [max(len(line[at]) for line in lines) for at in range(len(head))]
        for line in lines:
            click.echo("  ".join(map(str.ljust, line, widths)).rstrip())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    console = Console(soft_wrap=False)
    table = Table(box=None, header_style="bold", pad_edge=False)
    # What names a row is copied from it, and so stays whole while there is room.
    is_whole = 2 * max(len(row[0]) for row in [head, *rows]) <= console.width
    for at, name in enumerate(head):
        table.add_column(name, overflow="fold", no_wrap=at == 0 and is_whole)
    for row in rows:
        table.add_row(*(Text(cell, style=STYLES.get(cell, "")) for cell in row))
    console.print(table)


STYLES: Mapping[str, str] = {
    "PENDING": "dim",
    "QUEUED": "cyan",
    "RUNNING": "yellow",
    "RETRYING": "magenta",
    "WAITING": "blue",
    "PAUSED": "blue",
    "COMPLETED": "green",
    "SKIPPED": "dim",
    "FAILED": "red",
    "CANCELLED": "dim",
}


def why(node: Mapping[str, Any]) -> str | None:
    """The error of a node that failed, why one does not run or was not called, how far its items or
    its child are, or what one that waits asks."""
    reason: str | None = node["error"] or node.get("skipped_because")
    if reason is None and node.get("items"):
        counts = node["items"].items()
        reason = "items: " + ", ".join(f"{count:,} {state}" for state, count in counts)
    if reason is None and node.get("cached"):
        reason = "cached"
    return reason or _waits(node) or None


def _waits(node: Mapping[str, Any]) -> str:
    waiting = node.get("waiting") or {}
    text = waiting.get("text")
    if waiting.get("waits_for") == "slot":
        text = f"waits for limit {text}"
        if (before := waiting.get("before")) is not None:
            text += f": {before:,} before it" if before else ", the next"
    if child := node.get("child"):
        text = " ".join(("child", child, *filter(None, (node.get("child_progress"),))))
    until = f"until {clock(waiting['until_ms'])}" if waiting.get("until_ms") else ""
    return "; ".join(filter(None, (text, until)))
