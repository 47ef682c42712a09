"""`flowd limits`: what holds nodes back, who holds its places, and who waits."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from flowd.cli.completing import offering, place_of
from flowd.cli.numbers import Number, WholeNumber
from flowd.cli.remote import (
    ask_first,
    connected,
    output_option,
    server_options,
    show_done,
    show_json,
    show_rows,
    show_table,
    table_or_json_option,
    yes_option,
)
from flowd.cli.times import clock


def _names(ctx: click.Context) -> Iterator[CompletionItem]:
    from flowd.client import Client, ClientError

    try:
        with Client(*place_of(ctx)) as client:
            rows = client.limits()
    except ClientError:
        return
    for row in rows:
        yield CompletionItem(row["name"], help=_says(row))


name_argument = click.argument("name", shell_complete=offering(_names))


def _says(row: Mapping[str, Any]) -> str:
    said = []
    if row["max"] is not None:
        said.append(f"{row['max']:,} at once")
    if row["per_s"] is not None:
        said.append(f"{row['per_s']:g} a second")
    if row["burst"] is not None:
        said.append(f"{row['burst']:,} together")
    return ", ".join(said)


@click.group()
def limits() -> None:
    """List, show, make and lift limits.

    A limit says how many nodes run at once, and how many start a second: `flowd help limits`.
    """


@limits.command("ls")
@server_options
@output_option
def list_all(url: str | None, output: str) -> None:
    """List the limits."""
    with connected(url) as client:
        show_rows(
            iter(client.limits()),
            output,
            {
                "NAME": lambda row: row["name"],
                "SAYS": _says,
                "HOLDING": lambda row: f"{row['holding']:,}",
                "WAITING": lambda row: f"{row['waiting']:,}",
            },
            key="name",
        )


@limits.command()
@server_options
@table_or_json_option
@name_argument
def get(url: str | None, output: str, name: str) -> None:
    """Show a limit: what it says, who holds its places, and who waits."""
    with connected(url) as client:
        row = client.limit(name)
    if output == "json":
        show_json(row)
        return
    lines = [f"{row['name']}: {_says(row)}; {row['holding']:,} hold it, {row['waiting']:,} wait"]
    lines += [
        f"key      {one['key']}: {one['holding']:,} hold it, {one['waiting']:,} wait"
        for one in row["keys"]
    ]
    click.echo("\n".join(lines))
    turns = [("holds", one) for one in row["holders"]] + [("waits", one) for one in row["waiters"]]
    if turns:
        click.echo()
        show_table(_TURN, [_turn(word, one) for word, one in turns])


_TURN: Final = ("EXECUTION", "WORKFLOW", "NODE", "QUEUE", "KEY", "STATE", "SINCE")


def _turn(word: str, one: Mapping[str, Any]) -> list[str]:
    # A flowd of an earlier version says neither name nor queue.
    said = (one["execution_id"], one.get("name"), one["node_id"], one.get("queue"), one["key"])
    return [*("-" if each is None else each for each in said), word, clock(one["since_ms"])]


@limits.command()
@server_options
@table_or_json_option
@name_argument
@click.option("--max", "most", type=WholeNumber(0), help="How many run at once; 0 holds all.")
@click.option("--per-s", type=Number(0, min_open=True), help="How many start a second.")
@click.option("--burst", type=WholeNumber(1), help="How many of these may start together.")
def put(
    url: str | None,
    output: str,
    name: str,
    most: int | None,
    per_s: float | None,
    burst: int | None,
) -> None:
    """Make a limit, or change it to what is said here."""
    with connected(url) as client:
        answer = client.put_limit(name, max=most, per_s=per_s, burst=burst)
    show_done(answer, output, f"{answer['message'].lower()}: {name}", key="name")


@limits.command()
@server_options
@table_or_json_option
@name_argument
@yes_option
def rm(url: str | None, output: str, name: str, yes: bool) -> None:
    """Lift a limit; everybody who waits for a place starts."""
    with connected(url) as client:
        if not yes:
            ask_first(f"lift the limit {name}?", "nothing was lifted")
        client.delete_limit(name)
    show_done({"name": name}, output, f"lifted {name}", key="name")
