"""`flowd items`: look at the items of a node with `map`."""

from __future__ import annotations

from typing import Final

import click

from flowd.cli.numbers import WholeNumber
from flowd.cli.remote import (
    connected,
    execution_argument,
    find_id,
    output_option,
    server_options,
    short,
    show_rows,
)
from flowd.cli.times import node_took

ITEM_CHARS_MAX: Final = 60


@click.command()
@server_options
@output_option
@click.option("--state", multiple=True, help="Only items in this state; may be repeated.")
@click.option("-n", "--limit", type=WholeNumber(1), default=100, show_default=True)
@execution_argument
@click.argument("node")
def items(
    url: str | None, output: str, state: tuple[str, ...], limit: int, execution: str, node: str
) -> None:
    """List the items of a node with `map`, in the order of its list."""
    with connected(url) as client:
        execution_id = find_id(client, execution)
        wanted = [one.upper() for one in state] or None
        rows = list(client.items(execution_id, node, count_max=limit + 1, state=wanted))
        show_rows(
            rows,
            output,
            {
                "ITEM": lambda row: row["node_id"],
                "STATE": lambda row: row["state"],
                "ATTEMPT": lambda row: str(row["attempt"] or "-"),
                "TOOK": node_took,
                "OF": lambda row: short(row["item"], ITEM_CHARS_MAX),
                "ERROR": lambda row: row["error"] or "",
            },
            key="node_id",
            limit=limit,
        )
        failed = next((row for row in rows if row["state"] == "FAILED"), None)
        if failed and output == "table" and client.node(execution_id, node)["state"] == "COMPLETED":
            again = f"flowd rerun {execution_id} --from {failed['node_id']}"
            click.echo(f"as many may fail; to run the items again that did: {again}", err=True)
