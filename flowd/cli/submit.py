"""`flowd validate`, `flowd submit` and `flowd run`: from a file to an execution."""

from __future__ import annotations

import sys
import time

import click

from flowd.cli.exit_codes import FAILED, INTERRUPTED, TIMED_OUT
from flowd.cli.remote import connected, output_option, show_json, url_option
from flowd.cli.workflow_file import read_input, read_workflow

file_argument = click.argument("file", metavar="FILE")
input_option = click.option(
    "--input", "inputs", multiple=True, metavar="NAME=VALUE", help="A value of the input."
)


@click.command()
@url_option
@file_argument
def validate(url: str | None, file: str) -> None:
    """Check a workflow, and say everything that is wrong with it.

    FILE is JSON or YAML; `-` reads stdin.
    """
    workflow = read_workflow(file)
    with connected(url) as client:
        count = client.validate(workflow)
    click.echo(f"{file} is a valid workflow of {count} node{'s' * (count != 1)}", err=True)


@click.command()
@url_option
@output_option
@file_argument
@input_option
@click.option("--trigger", is_flag=True, help="Start it at once.")
@click.option("--wait", type=float, metavar="SECONDS", help="Start it and wait for its results.")
@click.option("--key", metavar="TEXT", help="An Idempotency-Key: submitted once, however often.")
def submit(
    url: str | None,
    output: str,
    file: str,
    inputs: tuple[str, ...],
    trigger: bool,
    wait: float | None,
    key: str | None,
) -> None:
    """Submit a workflow, and print the id of its execution."""
    workflow, given_input = read_workflow(file), read_input(inputs)
    with connected(url) as client:
        execution_id = client.submit(workflow, idempotency_key=key)
        if trigger or wait is not None or given_input is not None:
            client.trigger(execution_id, given_input)
        if wait is None:
            if output == "json":
                show_json({"execution_id": execution_id})
            else:
                click.echo(execution_id)
            return
        click.echo(execution_id, err=True)
        status = client.wait(execution_id, wait)
        show_json(client.results(execution_id))
    sys.exit(0 if status == "COMPLETED" else FAILED)


@click.command()
@url_option
@click.option("-o", "--output", type=click.Choice(["table", "json", "id"]), default="table")
@file_argument
@input_option
@click.option("--timeout", type=float, metavar="SECONDS", help="Do not wait any longer.")
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
        execution_id = client.submit(workflow)
        client.trigger(execution_id, given_input)
        end_s = None if timeout is None else time.monotonic() + timeout
        try:
            status = watch_execution(client, execution_id, end_s)
        except KeyboardInterrupt:
            click.echo(
                f"\nit runs on: `flowd watch {execution_id}` looks on, "
                f"`flowd cancel {execution_id}` ends it",
                err=True,
            )
            sys.exit(INTERRUPTED)
        if status is None:
            click.echo(f"it has not ended in {timeout:g} s; `flowd watch {execution_id}`", err=True)
            sys.exit(TIMED_OUT)
        if output == "id":
            click.echo(execution_id)
        else:
            show_json(client.results(execution_id))
    sys.exit(0 if status == "COMPLETED" else FAILED)
