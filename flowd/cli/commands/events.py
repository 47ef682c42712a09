"""`flowd events`: what happens, as it happens."""

from __future__ import annotations

import json

import click

from flowd.cli.completing import complete_executions
from flowd.cli.remote import connected, find_id, plain, server_options, table_or_json_option
from flowd.cli.times import clock


@click.command()
@server_options
@click.argument("execution", metavar="[ID]", required=False, shell_complete=complete_executions)
@click.option("-f", "--follow", is_flag=True, help="Of all executions, from now on, until Ctrl-C.")
@table_or_json_option
def events(url: str | None, execution: str | None, follow: bool, output: str) -> None:
    """Print the events of an execution, or of all.

    Those of one are printed until it ends, those of all (-f) from now on.
    """
    if execution is None and not follow:
        raise click.UsageError("give the id of an execution, or -f for all of them")
    with connected(url) as client:
        execution_id = None if execution is None else find_id(client, execution)
        for event in client.events(execution_id):
            if output == "json":
                click.echo(json.dumps({"id": event.id, "type": event.type, **event.data}))
                continue
            facts = event.data
            what = " ".join(
                str(facts[name])
                for name in ("execution_id", "node_id", "schedule")
                if facts.get(name)
            )
            attempt = f" attempt {facts['attempt']}" if facts.get("attempt") else ""
            click.echo(plain(f"{clock(facts.get('at_ms'))} {event.type} {what}{attempt}"))
