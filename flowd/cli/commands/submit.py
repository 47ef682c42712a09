"""`flowd validate`, `submit`, `trigger` and `run`: from a file to an execution."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from flowd.cli.exit_codes import FAILED
from flowd.cli.remote import (
    connected,
    execution_argument,
    find_id,
    output_option,
    server_options,
    show_done,
    show_json,
)
from flowd.cli.workflow_file import read_input, read_workflow

if TYPE_CHECKING:
    from flowd.client import Client

file_argument = click.argument("file", metavar="FILE")
input_option = click.option(
    "--input", "inputs", multiple=True, metavar="NAME=VALUE", help="A value of the input."
)
timeout_option = click.option(
    "--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Wait no longer than this."
)


@click.command()
@server_options
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@file_argument
def validate(url: str | None, output: str, file: str) -> None:
    """Check a workflow, and say everything that is wrong with it.

    FILE is JSON or YAML; `-` reads stdin.
    """
    workflow = read_workflow(file)
    with connected(url) as client:
        count = client.validate(workflow)
    if output == "json":
        show_json({"valid": True, "nodes": count})
    else:
        name = "stdin" if file == "-" else file
        click.echo(f"{name} is a valid workflow of {count} node{'s' * (count != 1)}", err=True)


@click.command()
@server_options
@output_option
@file_argument
@input_option
@click.option("--trigger", is_flag=True, help="Start it at once.")
@click.option("--wait", is_flag=True, help="Start it at once and print its results.")
@timeout_option
@click.option("--key", metavar="TEXT", help="An Idempotency-Key: submitted once, however often.")
def submit(
    url: str | None,
    output: str,
    file: str,
    inputs: tuple[str, ...],
    trigger: bool,
    wait: bool,
    timeout: float | None,
    key: str | None,
) -> None:
    """Submit a workflow, and print the id of its execution.

    With --wait it ends as `flowd run` does.
    """
    given_input = read_input(inputs)
    if given_input is not None and not (trigger or wait):
        raise click.UsageError("--input is for the start: add --trigger or --wait")
    if timeout is not None and not wait:
        raise click.UsageError("--timeout is how long to --wait")
    workflow = read_workflow(file)
    with connected(url) as client:
        execution_id = client.submit(
            workflow, trigger=trigger or wait, input=given_input, idempotency_key=key
        )
        if not wait:
            if output == "json":
                show_json({"execution_id": execution_id})
            else:
                click.echo(execution_id)
            if not trigger:
                click.echo(f"it waits: `flowd trigger {execution_id}` starts it", err=True)
            return
        with said_to_run_on(execution_id):
            click.echo(execution_id, err=True)
            status = client.wait(execution_id, timeout)
        show_end(client, execution_id, status, output)


@click.command()
@server_options
@output_option
@execution_argument
@input_option
def trigger(url: str | None, output: str, execution: str, inputs: tuple[str, ...]) -> None:
    """Start an execution that was submitted. One that was started already goes on as it is."""
    given_input = read_input(inputs)
    with connected(url) as client:
        execution_id = find_id(client, execution)
        client.trigger(execution_id, given_input)
        answer = {"execution_id": execution_id, "status": client.status(execution_id)}
    show_done(answer, output, f"started {execution_id}; `flowd watch {execution_id}` looks on")


@click.command()
@server_options
@output_option
@file_argument
@input_option
@timeout_option
def run(
    url: str | None, output: str, file: str, inputs: tuple[str, ...], timeout: float | None
) -> None:
    """Submit a workflow, start it, show its nodes while they run, and print its results.

    Ends with 0 when it completed, 1 when not, 124 when time ran out and 130 after Ctrl-C; the
    execution runs on in the last two.
    """
    from flowd.cli.watching import watch_execution

    workflow, given_input = read_workflow(file), read_input(inputs)
    with connected(url) as client:
        execution_id = client.submit(workflow, trigger=True, input=given_input)
        with said_to_run_on(execution_id):
            status = watch_execution(client, execution_id, timeout)
        show_end(client, execution_id, status, output)


@contextmanager
def said_to_run_on(execution_id: str) -> Iterator[None]:
    """Whoever leaves before the end hears how to look on, and how to end it."""
    try:
        yield
    except (KeyboardInterrupt, TimeoutError):
        click.echo(
            f"\nit runs on: `flowd watch {execution_id}` looks on, "
            f"`flowd cancel {execution_id}` ends it",
            err=True,
        )
        raise


def show_end(client: Client, execution_id: str, status: str, output: str) -> None:
    """Print what came of it, and leave with the exit code that says so."""
    if output == "id":
        click.echo(execution_id)
    else:
        results = client.results(execution_id)
        whole = {"execution_id": execution_id, "status": status, "results": results}
        show_json(whole if output == "json" else results)
    sys.exit(0 if status == "COMPLETED" else FAILED)
