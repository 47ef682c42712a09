"""`flowd cancel`, `pause`, `resume` and `rerun`: hold executions up, and run them again."""

from __future__ import annotations

import click

from flowd.cli.remote import (
    connected,
    execution_argument,
    find_id,
    output_option,
    server_options,
    show_done,
    show_json,
    show_table,
)


@click.command()
@server_options
@output_option
@execution_argument
def cancel(url: str | None, output: str, execution: str) -> None:
    """End an execution before its time."""
    with connected(url) as client:
        execution_id = find_id(client, execution)
        client.cancel(execution_id)
        answer = {"execution_id": execution_id, "status": client.status(execution_id)}
    show_done(answer, output, f"cancelled {execution_id}")


@click.command()
@server_options
@output_option
@execution_argument
def pause(url: str | None, output: str, execution: str) -> None:
    """Let no further node of an execution start; what runs goes on."""
    with connected(url) as client:
        execution_id = find_id(client, execution)
        client.pause(execution_id)
        answer = {"execution_id": execution_id, "status": client.status(execution_id)}
    show_done(answer, output, f"paused {execution_id}; `flowd resume {execution_id}` lets it go on")


@click.command()
@server_options
@output_option
@execution_argument
def resume(url: str | None, output: str, execution: str) -> None:
    """Let a paused execution go on."""
    with connected(url) as client:
        execution_id = find_id(client, execution)
        client.resume(execution_id)
        answer = {"execution_id": execution_id, "status": client.status(execution_id)}
    show_done(answer, output, f"resumed {execution_id}")


@click.command()
@server_options
@output_option
@execution_argument
@click.option("--from", "start", default="failed", help="A node; what failed, by default.")
@click.option("--preview", is_flag=True, help="Only say what would run and what be reused.")
def rerun(url: str | None, output: str, execution: str, start: str, preview: bool) -> None:
    """Run an ended execution again, as a new one, and print its id.

    Outputs of nodes that completed are reused, unless something they depend on runs again.
    """
    with connected(url) as client:
        found = client.rerun(find_id(client, execution), start, preview=preview)
    if output == "json":
        show_json(found)
        return
    if preview:
        rows = [(one["node_id"], "runs", one["why"]) for one in found["runs"]]
        rows += [(one["node_id"], "is reused", one["why"]) for one in found["reused"]]
        rows += [(one["node_id"], "stays failed", one["why"]) for one in found["left_out"]]
        show_table(("NODE", "", "WHY"), rows)
        return
    click.echo(found["execution_id"])
    runs, reused = len(found["runs"]), len(found["reused"])
    left_out = f", {count:,} left failed" if (count := len(found["left_out"])) else ""
    click.echo(f"{runs:,} to run, {reused:,} reused{left_out}", err=True)
