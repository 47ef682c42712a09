"""The part of `flowd logs` that shows what nodes have said, and say."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import click

from flowd.cli.remote import connected, find_id, plain

if TYPE_CHECKING:
    from flowd.client import Client

_COLORS: Final = {"stderr": "yellow", "warning": "yellow", "error": "red", "traceback": "red"}
_NAME_COLORS: Final = ("cyan", "green", "magenta", "blue", "yellow")


def show_node_logs(
    url: str | None,
    execution: str,
    node: str | None,
    attempt: int | None,
    *,
    lines: int,
    follow: bool,
    output: str,
) -> None:
    """Print what one node has said, or all of an execution, and go on until the end."""
    with connected(url) as client:
        execution_id = find_id(client, execution)
        if follow:
            found = _followed(client, execution_id, node, attempt)
        else:
            found = _kept(client, execution_id, node, attempt, lines)
        _print(found, is_of_one=node is not None, output=output)


def _kept(
    client: Client, execution_id: str, node: str | None, attempt: int | None, lines: int
) -> Iterator[Mapping[str, Any]]:
    answer = client.logs(execution_id, node, attempt=attempt, lines=max(1, lines))
    about = {} if node is None else {"node_id": node, "attempt": answer["attempt"]}
    shown = answer["lines"][-lines:] if lines else []
    gap_at = answer.get("dropped_at")
    for at, line in enumerate(shown):
        if at == gap_at:
            yield {**about, "dropped": answer["dropped"]}
        yield {**about, **line}
    if answer["dropped"] and (gap_at is None or gap_at >= len(shown)):
        yield {**about, "dropped": answer["dropped"]}


def _followed(
    client: Client, execution_id: str, node: str | None, attempt: int | None
) -> Iterator[Mapping[str, Any]]:
    for event in client.follow_logs(execution_id, node, attempt=attempt):
        about = {name: event.data.get(name) for name in ("node_id", "attempt")}
        if event.type == "lines":
            for line in event.data["lines"]:
                yield {**about, **line}
        elif event.type == "dropped":
            yield {**about, "dropped": event.data["lines"]}


def _print(found: Iterable[Mapping[str, Any]], *, is_of_one: bool, output: str) -> None:
    colors: dict[str, str] = {}
    attempts: dict[str, int] = {}
    for line in found:
        if output == "json":
            click.echo(json.dumps(line))
            continue
        node_id = str(line.get("node_id") or "")
        color = colors.setdefault(node_id, _NAME_COLORS[len(colors) % len(_NAME_COLORS)])
        name = "" if is_of_one else click.style(f"{plain(node_id)} | ", fg=color)
        attempt = line.get("attempt") or 0
        if attempt > attempts.setdefault(node_id, 1):
            attempts[node_id] = attempt
            click.echo(name + click.style(f"— attempt {attempt} —", dim=True))
        click.echo(name + _shown(line))


def _shown(line: Mapping[str, Any]) -> str:
    if "dropped" in line:
        return click.style(f"… {line['dropped']:,} lines are not kept", dim=True)
    at = datetime.fromtimestamp(line["at_ms"] / 1000).astimezone()
    clock = click.style(f"{at:%H:%M:%S}.{line['at_ms'] % 1000:03d}", dim=True)
    text = plain(line["text"])
    stream = line["stream"]
    if stream in _COLORS:
        return f"{clock} {click.style(text, fg=_COLORS[stream])}"
    return f"{clock} {text}"
