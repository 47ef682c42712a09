"""`flowd definitions`: workflows saved under names."""

from __future__ import annotations

import click

from flowd.cli.completing import complete_definitions
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
from flowd.cli.times import clock
from flowd.cli.unknown_names import warn_of_workflow
from flowd.cli.workflow_file import read_workflow

name_argument = click.argument("name", metavar="NAME", shell_complete=complete_definitions)
version_option = click.option(
    "--version", type=WholeNumber(1), metavar="N", help="This version; default: the latest."
)
_limit_option = click.option("-n", "--limit", type=WholeNumber(1), default=50, show_default=True)


@click.group()
def definitions() -> None:
    """List, show, save and delete saved workflows.

    `flowd run NAME` runs one.
    """


@definitions.command()
@server_options
@output_option
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME:VALUE",
    help="Only those with this label; may be repeated.",
)
@_limit_option
def ls(url: str | None, output: str, labels: tuple[str, ...], limit: int) -> None:
    """List the saved workflows, each with its latest version."""
    with connected(url) as client:
        show_rows(
            client.definitions(count_max=limit + 1, label=list(labels) or None),
            output,
            {
                "NAME": lambda row: row["name"],
                "VERSION": lambda row: "-" if row["version"] is None else str(row["version"]),
                "NODES": lambda row: "-" if row["nodes"] is None else f"{row['nodes']:,}",
                "SAVED": lambda row: clock(row["saved_ms"]),
            },
            key="name",
            limit=limit,
        )


@definitions.command()
@server_options
@table_or_json_option
@name_argument
@version_option
def get(url: str | None, output: str, name: str, version: int | None) -> None:
    """Print a saved workflow; `flowd definitions put` takes it again.

    With -o json the answer says its version too.
    """
    with connected(url) as client:
        found = client.saved_definition(name, version)
    show_json(found if output == "json" else found["definition"])


@definitions.command()
@server_options
@output_option
@name_argument
@click.argument("file", metavar="FILE", type=click.Path(allow_dash=True))
def put(url: str | None, output: str, name: str, file: str) -> None:
    """Save a workflow under a name, as its next version.

    What equals the latest version stays that.
    """
    workflow = read_workflow(file)
    with connected(url, file) as client:
        answer = client.put_definition(name, workflow)
        warn_of_workflow(client, workflow, file)
    message = f"{answer['message']}: {name}, version {answer['version']}"
    show_done(answer, output, message, key="version")


@definitions.command()
@server_options
@output_option
@name_argument
@_limit_option
def versions(url: str | None, output: str, name: str, limit: int) -> None:
    """List the versions of a saved workflow, the newest first."""
    with connected(url) as client:
        show_rows(
            client.versions(name, count_max=limit + 1),
            output,
            {
                "VERSION": lambda row: str(row["version"]),
                "NODES": lambda row: f"{row['nodes']:,}",
                "SAVED": lambda row: clock(row["saved_ms"]),
            },
            key="version",
            limit=limit,
        )


@definitions.command()
@server_options
@output_option
@name_argument
@yes_option
def rm(url: str | None, output: str, name: str, yes: bool) -> None:
    """Delete a saved workflow with all its versions; its executions stay.

    What a schedule or another saved workflow runs is not deleted.
    """
    with connected(url) as client:
        if not yes:
            ask_first(f"delete {name} with all its versions?", "nothing was deleted")
        client.delete_definition(name)
    show_done(
        {"name": name, "message": "Definition deleted"}, output, f"deleted {name}", key="name"
    )
