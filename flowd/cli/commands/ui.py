"""`flowd ui`: where the dashboard is."""

from __future__ import annotations

import webbrowser
from contextlib import suppress

import click

from flowd.cli.completing import complete_executions
from flowd.cli.remote import connected, find_id, server_options, show_json, table_or_json_option


@click.command()
@server_options
@table_or_json_option
@click.argument("execution", metavar="[ID]", required=False, shell_complete=complete_executions)
@click.option("--open", "opens", is_flag=True, help="Open it in a browser, too.")
def ui(url: str | None, output: str, execution: str | None, opens: bool) -> None:
    """Print the address of the dashboard, or of one execution there."""
    from flowd.client import ApiError

    with connected(url) as client:
        view = "" if execution is None else f"executions/{find_id(client, execution)}"
        # Whatever it says, it answers.
        with suppress(ApiError):
            client.overview()
        if client.url.startswith("unix:"):
            raise click.ClickException(
                f"the API listens on {client.url}, which no browser reaches; put a proxy before it"
            )
        address = f"{client.url}/ui/{view}"
    if output == "json":
        show_json({"address": address})
    else:
        click.echo(address)
    if opens and not webbrowser.open(address):
        raise click.ClickException("no browser was found; open the address above in one")
