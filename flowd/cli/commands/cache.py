"""`flowd cache`: what is kept for equal calls, and how to forget it."""

from __future__ import annotations

from collections.abc import Iterator

import click
from click.shell_completion import CompletionItem

from flowd.cli.completing import offering, place_of
from flowd.cli.remote import (
    ask_first,
    connected,
    output_option,
    server_options,
    show_done,
    show_rows,
    table_or_json_option,
    yes_option,
)


def _handlers(ctx: click.Context) -> Iterator[CompletionItem]:
    from flowd.client import Client, ClientError

    try:
        with Client(*place_of(ctx)) as client:
            rows = client.cache()["handlers"]
    except ClientError:
        return
    for row in rows:
        yield CompletionItem(row["handler"], help=f"{row['entries']:,} kept")


@click.group()
def cache() -> None:
    """Show and clear the outputs that are kept for equal calls: `flowd help cache`."""


@cache.command("ls")
@server_options
@output_option
def list_all(url: str | None, output: str) -> None:
    """List how much is kept of each handler."""
    with connected(url) as client:
        show_rows(
            iter(client.cache()["handlers"]),
            output,
            {
                "HANDLER": lambda row: row["handler"],
                "ENTRIES": lambda row: f"{row['entries']:,}",
                "BYTES": lambda row: f"{row['bytes']:,}",
            },
            key="handler",
        )


@cache.command()
@server_options
@table_or_json_option
@click.option(
    "--handler", metavar="NAME", shell_complete=offering(_handlers), help="Only of this handler."
)
@click.option("--key", metavar="BEGINNING", help="Only under keys that begin so.")
@yes_option
def clear(url: str | None, output: str, handler: str | None, key: str | None, yes: bool) -> None:
    """Forget what is kept, so that equal calls are made again."""
    if key is not None and handler is None:
        raise click.UsageError("--key needs --handler: keys are those of a handler")
    with connected(url) as client:
        if not yes:
            what = f"of {handler}" if handler else "of all handlers"
            ask_first(f"forget the outputs {what} that are kept?", "nothing was forgotten")
        removed = client.clear_cache(handler=handler, key=key)
    outputs = "1 output" if removed == 1 else f"{removed:,} outputs"
    show_done({"removed": removed}, output, f"forgot {outputs}", key="removed")
