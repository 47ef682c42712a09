"""`flowd cancel`, `pause`, `resume`, `rerun` and `rm`: what is done to an execution."""

from __future__ import annotations

from operator import methodcaller

import click

from flowd.cli.outcome import check_timeout, timeout_option, wait_and_show, wait_option
from flowd.cli.remote import (
    ask_first,
    connected,
    find_id,
    of_an_execution,
    plain,
    show_done,
    show_json,
    yes_option,
)
from flowd.cli.rerun_preview import show_fates, show_preview
from flowd.cli.workflow_file import read_workflow


def _hold(verb: str, text: str, message: str) -> click.Command:
    """A command that is one call of an execution, and says the state it is in after it."""

    @click.command(verb, help=text)
    @of_an_execution
    def hold(url: str | None, output: str, execution: str) -> None:
        with connected(url) as client:
            execution_id = find_id(client, execution)
            methodcaller(verb, execution_id)(client)
            answer = {"execution_id": execution_id, "status": client.status(execution_id)}
        show_done(answer, output, message.format(execution_id))

    return hold


@click.command()
@of_an_execution
@click.option("--force", is_flag=True, help="Leave out the nodes of `finally`, or break them off.")
def cancel(url: str | None, output: str, execution: str, force: bool) -> None:
    """Cancel an execution; running nodes are told to stop.

    The nodes of its `finally` run all the same, and until they have ended it is RUNNING.
    """
    with connected(url) as client:
        execution_id = find_id(client, execution)
        client.cancel(execution_id, force=force)
        answer = {"execution_id": execution_id, "status": client.status(execution_id)}
    said = f"cancelled {execution_id}"
    if answer["status"] == "RUNNING":
        force_it = f"`flowd cancel {execution_id} --force`"
        said = f"cancelling {execution_id}; its finally runs, {force_it} breaks it off"
    show_done(answer, output, said)


pause = _hold(
    "pause",
    "Pause an execution; running nodes finish.",
    "paused {0}; `flowd resume {0}` lets it go on",
)
resume = _hold("resume", "Resume a paused execution.", "resumed {}")


@click.command()
@of_an_execution
@yes_option
def rm(url: str | None, output: str, execution: str, yes: bool) -> None:
    """Delete an execution, with its outputs and events.

    It must have ended or not been triggered yet; cancel a running one first.
    """
    with connected(url) as client:
        execution_id = find_id(client, execution)
        if not yes:
            summary = client.get(execution_id)
            what = f"{execution_id} {plain(summary['name'] or '')} ({summary['status']})"
            ask_first(f"delete {what}, with all its outputs?", "nothing was deleted")
        client.delete(execution_id)
    show_done({"execution_id": execution_id, "deleted": True}, output, f"deleted {execution_id}")


@click.command()
@of_an_execution
@click.option(
    "--from",
    "start",
    default="failed",
    help="Run this node and everything downstream; by default, all nodes without an output.",
)
@click.option(
    "--with",
    "file",
    metavar="FILE",
    type=click.Path(allow_dash=True),
    help="Run the corrected workflow in this file; what it changes runs again, too.",
)
@click.option("--preview", is_flag=True, help="Only list what would run and what would be reused.")
@click.option("--key", metavar="TEXT", help="Idempotency-Key: the same again runs it again once.")
@wait_option
@timeout_option
def rerun(
    url: str | None,
    output: str,
    execution: str,
    start: str,
    file: str | None,
    preview: bool,
    key: str | None,
    wait: bool,
    timeout: float | None,
) -> None:
    """Run an ended execution again, as a new one, and print its id.

    Outputs of nodes that completed are reused, unless something they depend on runs again. With
    --with they also have to be unchanged in the corrected workflow.
    """
    if wait and preview:
        raise click.UsageError("--preview runs nothing to wait for; leave out --preview or --wait")
    check_timeout(timeout, waits=wait)
    corrected = read_workflow(file) if file is not None else None
    with connected(url, file) as client:
        answer = client.rerun(
            find_id(client, execution),
            start,
            preview=preview,
            definition=corrected,
            idempotency_key=key,
        )
        if file is not None and not preview and output != "json":
            show_fates(answer)
        if wait:
            wait_and_show(client, answer["execution_id"], timeout, output)
    if preview:
        show_preview(answer, output)
        return
    if output == "json":
        show_json(answer)
        return
    click.echo(answer["execution_id"])
    runs, reused = len(answer["runs"]), len(answer["reused"])
    left_out = f", {count:,} left failed" if (count := len(answer["left_out"])) else ""
    removed = f", {count:,} removed" if (count := len(answer.get("removed", ()))) else ""
    click.echo(f"{runs:,} to run, {reused:,} reused{left_out}{removed}", err=True)
