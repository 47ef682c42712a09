"""`flowd dlq`: the tasks no worker could run."""

from __future__ import annotations

import click

from flowd.cli.remote import clock, connected, output_option, server_options, show_json, show_rows


@click.group()
def dlq() -> None:
    """Look at the dead letters: tasks that were given up, and entries nobody could read."""


@dlq.command("list")
@server_options
@output_option
@click.option("-n", "--limit", type=click.IntRange(1), default=50, show_default=True)
def show_all(url: str | None, output: str, limit: int) -> None:
    """List the dead letters."""
    with connected(url) as client:
        show_rows(
            client.dead_letters(count_max=limit),
            output,
            {
                "ID": lambda row: row["dead_letter_id"],
                "AT": lambda row: clock(row["at_ms"]),
                "EXECUTION": lambda row: row["execution_id"] or "-",
                "NODE": lambda row: row["node_id"] or "-",
                "REASON": lambda row: row["reason"],
            },
            key="dead_letter_id",
        )


@dlq.command()
@server_options
@click.argument("letter", metavar="ID")
def show(url: str | None, letter: str) -> None:
    """Show one dead letter with all that is known of it."""
    with connected(url) as client:
        show_json(client.dead_letter(letter))


@dlq.command()
@server_options
@click.argument("letter", metavar="ID")
def redrive(url: str | None, letter: str) -> None:
    """Run the node of a dead letter again, in a new execution, and print its id."""
    with connected(url) as client:
        click.echo(client.redrive(letter)["execution_id"])


@dlq.command()
@server_options
@click.argument("letter", metavar="ID", required=False)
@click.option("--all", "is_all", is_flag=True, help="Forget all of them.")
def purge(url: str | None, letter: str | None, is_all: bool) -> None:
    """Forget a dead letter, or all."""
    if (letter is None) != is_all:
        raise click.UsageError("give the id of a dead letter, or --all")
    with connected(url) as client:
        client.purge(letter or "")
