"""`flowd dlq`: the tasks no worker could run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from flowd.cli.numbers import WholeNumber
from flowd.cli.remote import (
    ask_first,
    connected,
    output_option,
    server_options,
    show_done,
    show_json,
    show_rows,
    table_or_json_option,
    yes_option,
)
from flowd.cli.rerun_preview import show_preview
from flowd.cli.times import clock

if TYPE_CHECKING:
    from flowd.client import Client


def _preview(client: Client, letter: str) -> dict[str, Any]:
    details = client.dead_letter(letter)
    if details["execution_id"] is None or details["node_id"] is None:
        raise click.ClickException(
            f"dead letter {letter!r} names no node to run again; `flowd dlq show` shows it"
        )
    return client.rerun(details["execution_id"], details["node_id"], preview=True)


@click.group()
def dlq() -> None:
    """List, show, redrive and delete dead letters.

    A dead letter is a node that was given up, or an entry nobody could run.
    """


@dlq.command("list")
@server_options
@output_option
@click.option("-n", "--limit", type=WholeNumber(1), default=50, show_default=True)
def show_all(url: str | None, output: str, limit: int) -> None:
    """List the dead letters."""
    with connected(url) as client:
        show_rows(
            client.dead_letters(count_max=limit + 1),
            output,
            {
                "ID": lambda row: row["dead_letter_id"],
                "AT": lambda row: clock(row["at_ms"]),
                "EXECUTION": lambda row: row["execution_id"] or "-",
                "NODE": lambda row: row["node_id"] or "-",
                "REASON": lambda row: row["reason"],
            },
            key="dead_letter_id",
            limit=limit,
        )


@dlq.command()
@server_options
@output_option
@click.argument("letter", metavar="ID")
def show(url: str | None, output: str, letter: str) -> None:
    """Show one dead letter with all its details."""
    with connected(url) as client:
        details = client.dead_letter(letter)
    if output == "id":
        click.echo(details["dead_letter_id"])
    else:
        show_json(details)


@dlq.command()
@server_options
@output_option
@click.option("--preview", is_flag=True, help="Only list what would run and what would be reused.")
@click.argument("letter", metavar="ID")
def redrive(url: str | None, output: str, letter: str, preview: bool) -> None:
    """Run the node of a dead letter again, with everything downstream.

    They run in a new execution, whose id is printed.
    """
    with connected(url) as client:
        if preview:
            show_preview(_preview(client, letter), output)
            return
        answer = client.redrive(letter)
    if output == "json":
        show_json(answer)
    else:
        click.echo(answer["execution_id"])


@dlq.command()
@server_options
@table_or_json_option
@click.argument("letter", metavar="[ID]", required=False)
@click.option("--all", "is_all", is_flag=True, help="Delete all of them.")
@yes_option
def purge(url: str | None, output: str, letter: str | None, is_all: bool, yes: bool) -> None:
    """Delete a dead letter, or all."""
    if (letter is None) != is_all:
        raise click.UsageError("give the id of a dead letter, or --all")
    with connected(url) as client:
        if is_all and not yes:
            ask_first("delete all dead letters?", "nothing was deleted")
        answer = client.purge(letter or "")
    count = answer.get("deleted", 1)
    show_done(answer, output, f"forgot {count:,} dead letter{'s' * (count != 1)}")
