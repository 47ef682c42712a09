"""`flowd events`: what happens, as it happens."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import get_args

import click

from flowd.cli.completing import complete_executions
from flowd.cli.remote import connected, find_id, plain, server_options, table_or_json_option
from flowd.cli.times import clock


@click.command()
@server_options
@click.argument("execution", metavar="[ID]", required=False, shell_complete=complete_executions)
@click.option("-f", "--follow", is_flag=True, help="Of all executions, from now on, until Ctrl-C.")
@click.option(
    "--type",
    "types",
    multiple=True,
    metavar="TYPE",
    help="Only events of this type, such as execution.failed; may be repeated.",
)
@table_or_json_option
def events(
    url: str | None, execution: str | None, follow: bool, types: tuple[str, ...], output: str
) -> None:
    """Print the events of an execution, or of all.

    Those of one are printed until it ends, those of all (-f) from now on.
    """
    _check(types)
    if execution is None and not follow:
        raise click.UsageError("give the id of an execution, or -f for all of them")
    with connected(url) as client:
        execution_id = None if execution is None else find_id(client, execution)
        for event in client.events(execution_id):
            # The end of an execution is heard whichever are asked for, and a gap is told to all.
            if types and event.type not in (*types, "gap"):
                continue
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


def _check(types: Iterable[str]) -> None:
    """Raises UsageError for a type no event has."""
    if not types:
        return
    from flowd.store.events import EventType
    from flowd.suggestions import did_you_mean

    known = get_args(EventType)
    for one in types:
        if one not in known:
            hint = did_you_mean(one, known) or f"; there are {', '.join(known)}"
            raise click.UsageError(f"no event has the type {one!r}{hint}")
