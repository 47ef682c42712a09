"""`flowd logs`: what the nodes of an execution say; or the log file, where there is one, of one
process, execution or node, or all."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Final

import click

from flowd.cli.commands.node_logs import show_node_logs
from flowd.cli.completing import complete_executions, complete_processes
from flowd.cli.exit_codes import FAILED
from flowd.cli.numbers import WholeNumber
from flowd.cli.options import config_option, running_settings_of
from flowd.cli.remote import server_options
from flowd.owned_folder import follow_own_links
from flowd.workflow.report import quote

_POLL_S: Final = 0.2


def _complete(ctx: click.Context, parameter: click.Parameter, incomplete: str) -> list[Any]:
    names = complete_processes(ctx, parameter, incomplete)
    return [*names, *complete_executions(ctx, parameter, incomplete)]


# No process is named like an execution, or like the beginning of its id.
_EXECUTION: Final = re.compile(r"@latest|[0-9a-f]{1,24}")


@click.command()
@server_options
@click.argument("name", required=False, metavar="[ID | PROCESS]", shell_complete=_complete)
@click.argument("of_node", required=False, metavar="[NODE]")
@click.option("-f", "--follow", is_flag=True, help="Keep printing new lines; of an ID to its end.")
@click.option("--attempt", type=WholeNumber(1), help="Of a node: this attempt, not the newest.")
@click.option(
    "-n",
    "--lines",
    type=WholeNumber(0),
    default=100,
    show_default=True,
    help="How many lines.",
)
@click.option(
    "--execution",
    metavar="ID",
    help="Only lines of this execution; the beginning of an id is enough.",
)
@click.option("--node", metavar="ID", help="Only lines of nodes with this id.")
@click.option(
    "-o",
    "--output",
    type=click.Choice(["text", "json"]),
    help="Default: text on a terminal, otherwise JSON.",
)
@config_option
@click.pass_context
def logs(
    ctx: click.Context,
    url: str | None,
    name: str | None,
    of_node: str | None,
    attempt: int | None,
    follow: bool,
    lines: int,
    execution: str | None,
    node: str | None,
    output: str | None,
    config: Path | None,
) -> None:
    """Show what the nodes of an execution say, or one of them.

    ID may be the beginning of an id, or `@latest`. Without one: the end of flowd's own log file, of
    one process (worker-2) or of all.
    """
    if attempt is not None and of_node is None:
        raise click.UsageError("--attempt is of a node; name it after the ID")
    if name is not None and _EXECUTION.fullmatch(name):
        show_node_logs(
            url, name, of_node, attempt, lines=lines, follow=follow, output=output or "text"
        )
        return
    if of_node is not None:
        raise click.UsageError("give the id of an execution, and of a node of it")
    line_filter = _LineFilter(name, execution, node)
    _show_log_file(ctx, line_filter, name, lines=lines, follow=follow, output=output, config=config)


def _show_log_file(
    ctx: click.Context,
    line_filter: _LineFilter,
    name: str | None,
    *,
    lines: int,
    follow: bool,
    output: str | None,
    config: Path | None,
) -> None:
    path = running_settings_of(config).log.file
    if path is None:
        if name is not None:
            click.echo(f"flowd: {quote(name)} is no id of an execution", err=True)
        click.echo(
            "flowd writes its log to stderr: to the terminal of `flowd start`, or to the journal, "
            "see `journalctl -u flowd`; set log.file to have it in a file",
            err=True,
        )
        ctx.exit(FAILED)
    writer = _Writer(output or ("text" if sys.stdout and sys.stdout.isatty() else "json"))
    try:
        last_lines, place = _last_lines(path, lines, line_filter)
    except FileNotFoundError:
        click.echo(f"flowd: there is no {path} yet; flowd creates it when it starts", err=True)
        ctx.exit(FAILED)
    except OSError as error:
        click.echo(f"flowd: cannot read {path}: {error.strerror}", err=True)
        ctx.exit(FAILED)
    if name is not None and name not in line_filter.processes:
        known = ", ".join(sorted(line_filter.processes)) or "none yet"
        click.echo(f"flowd: there is no process {name!r} in {path}; there are: {known}", err=True)
        ctx.exit(FAILED)
    with suppress(KeyboardInterrupt, BrokenPipeError):
        for line in last_lines:
            writer.write(line)
        for line in _new_lines(path, place) if follow else ():
            if line_filter.has(line):
                writer.write(line)


class _LineFilter:
    """Which lines are asked for; notes the processes of all it was shown."""

    def __init__(self, process: str | None, execution: str | None, node: str | None) -> None:
        self._process = process
        self._execution = execution
        self._node = node
        self.processes: set[str] = set()

    def has(self, line: bytes) -> bool:
        if self._process is self._execution is self._node is None:
            return True
        record = _record(line)
        process = str(record.get("process"))
        self.processes.add(process)
        return (
            (self._process is None or process == self._process)
            and (
                self._execution is None
                or str(record.get("execution_id", "")).startswith(self._execution)
            )
            and (self._node is None or record.get("node_id") == self._node)
        )


class _Writer:
    def __init__(self, output: str) -> None:
        self._is_text = output == "text"
        self._has_color = bool(sys.stdout and sys.stdout.isatty() and not os.getenv("NO_COLOR"))

    def write(self, line: bytes) -> None:
        if not sys.stdout:
            return
        if not self._is_text:
            sys.stdout.buffer.write(line)
            sys.stdout.buffer.flush()
            return
        from flowd.cli.remote import plain
        from flowd.log import text_of_record

        record = _record(line)
        if record:
            text = text_of_record(record, has_color=self._has_color)
        else:
            text = plain(line.decode("utf-8", "replace").rstrip("\n")) + "\n"
        sys.stdout.write(text)
        sys.stdout.flush()


def _record(line: bytes) -> dict[str, Any]:
    """Empty where it is no line of the log, or a torn one."""
    try:
        record = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return record if isinstance(record, dict) else {}


def _last_lines(path: Path, count: int, line_filter: _LineFilter) -> tuple[list[bytes], int]:
    """The last of them, also of the old files while these are too few; where the file ends."""
    with _open(path) as file:
        last_lines = list(deque(filter(line_filter.has, file), maxlen=count))
        place = file.tell()
    number = 1
    while len(last_lines) < count:
        try:
            file = _open(path.with_name(f"{path.name}.{number}"))
        except OSError:
            break
        with file:
            last_lines = [
                *deque(filter(line_filter.has, file), maxlen=count - len(last_lines)),
                *last_lines,
            ]
        number += 1
    return last_lines, place


def _open(path: Path) -> BinaryIO:
    """The folder may be the service's, and the reader root: a link of the service leads nowhere."""
    flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NOCTTY
    return os.fdopen(os.open(follow_own_links(path), flags), "rb")


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
