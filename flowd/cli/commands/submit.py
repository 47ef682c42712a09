"""`flowd submit`, `trigger` and `run`: from a file to an execution."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from flowd.cli.commands.definitions import version_option
from flowd.cli.completing import complete_runs
from flowd.cli.outcome import (
    check_timeout,
    said_to_run_on,
    show_end,
    timeout_option,
    wait_and_show,
    wait_option,
)
from flowd.cli.profiles import names_profile
from flowd.cli.remote import (
    connected,
    find_id,
    of_an_execution,
    output_option,
    plain,
    server_options,
    show_done,
    show_json,
)
from flowd.cli.unknown_names import warn_of_inputs, warn_of_workflow
from flowd.cli.workflow_file import read_input, read_workflow
from flowd.workflow.ids import is_name

if TYPE_CHECKING:
    from flowd.client import Client

file_argument = click.argument("file", metavar="FILE", type=click.Path(allow_dash=True))
input_option = click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value of the input; may be repeated.",
)

key_option = click.option(
    "--key",
    metavar="TEXT",
    help="Idempotency-Key: however often it is used, there is one execution.",
)


@click.command()
@server_options
@output_option
@file_argument
@input_option
@click.option("--trigger", is_flag=True, help="Start the execution at once.")
@wait_option
@timeout_option
@key_option
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

    With --wait it is started at once, and the exit code is that of `flowd run`.
    """
    given_input = read_input(inputs)
    if given_input is not None and not (trigger or wait):
        raise click.UsageError("--input is for the start; add --trigger or --wait")
    check_timeout(timeout, waits=wait)
    workflow = read_workflow(file)
    with connected(url, file) as client:
        execution_id = client.submit(
            workflow, trigger=trigger or wait, input=given_input, idempotency_key=key
        )
        warn_of_workflow(client, workflow, file, given_input=given_input)
        if not wait:
            _say_id(execution_id, output)
            if not trigger:
                click.echo(f"start it with `flowd trigger {execution_id}`", err=True)
            return
        wait_and_show(client, execution_id, timeout, output)


def _say_id(execution_id: str, output: str) -> None:
    if output == "json":
        show_json({"execution_id": execution_id})
    else:
        click.echo(execution_id)


@click.command()
@of_an_execution
@input_option
@wait_option
@timeout_option
def trigger(
    url: str | None,
    output: str,
    execution: str,
    inputs: tuple[str, ...],
    wait: bool,
    timeout: float | None,
) -> None:
    """Start an execution that was submitted. Starting it again changes nothing."""
    check_timeout(timeout, waits=wait)
    given_input = read_input(inputs)
    with connected(url) as client:
        execution_id = find_id(client, execution)
        before = client.status(execution_id)
        client.trigger(execution_id, given_input)
        if given_input:
            warn_of_inputs(client.definition(execution_id), given_input)
        if wait:
            wait_and_show(client, execution_id, timeout, output)
        status = client.status(execution_id)
    message = f"started {execution_id}; `flowd watch {execution_id}` follows it"
    if before != "PENDING":
        message = f"{execution_id} was started before, and is {status}"
    show_done({"execution_id": execution_id, "status": status}, output, message)


@click.command()
@server_options
@output_option
@click.argument(
    "workflow", metavar="FILE|NAME", type=click.Path(allow_dash=True), shell_complete=complete_runs
)
@input_option
@version_option
@click.option("--no-wait", is_flag=True, help="Start it, print the id of its execution, and leave.")
@timeout_option
@key_option
@click.option(
    "--local",
    is_flag=True,
    help="Run it on a private flowd, which is gone afterwards; none needs to run.",
)
@click.option(
    "--config",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Settings file for --local; default: flowd.toml beside FILE, else of this folder.",
)
@click.option(
    "--with",
    "beside",
    multiple=True,
    metavar="FILE",
    type=click.Path(exists=True),
    help="For --local: a file or a folder with definitions that are saved there first, such as "
    "those that the workflow runs as children; may be repeated.",
)
@click.pass_context
def run(
    ctx: click.Context,
    url: str | None,
    output: str,
    workflow: str,
    inputs: tuple[str, ...],
    version: int | None,
    no_wait: bool,
    timeout: float | None,
    key: str | None,
    local: bool,
    config: Path | None,
    beside: tuple[str, ...],
) -> None:
    """Run a workflow, from a file or saved, and follow it until it ends.

    What is no file is the NAME of a saved workflow, see `flowd definitions`.

    On a terminal it shows the nodes while they run, and then a summary; in a pipe it prints the
    output that the workflow has, else those of all nodes, and with -o json everything. Exits with 0
    if the execution completed, 1 if not, 124 after the timeout and 130 after Ctrl-C; after the last
    two the execution continues, except with --local.
    """
    is_saved = version is not None or _is_saved(workflow)
    _check_usage(ctx, is_saved=is_saved)
    given_input = read_input(inputs)
    if is_saved:
        start = partial(_start, workflow, given_input, version, key)
        warn = partial(_warn_of_saved, workflow, version, given_input)
        _run(url, start, warn, timeout, output, waits=not no_wait)
        return
    definition = read_workflow(workflow)
    if local:
        from flowd.cli.local_run import run_locally

        run_locally(
            workflow,
            definition,
            given_input,
            settings_file=config,
            beside=beside,
            timeout_s=timeout,
            output=output,
        )
        return
    start = partial(_submit, definition, given_input, key)
    warn = partial(warn_of_workflow, body=definition, file=workflow, given_input=given_input)
    _run(url, start, warn, timeout, output, workflow, waits=not no_wait)


def _check_usage(ctx: click.Context, *, is_saved: bool) -> None:
    given, local = ctx.params, ctx.params["local"]
    has_url = ctx.get_parameter_source("url") is ParameterSource.COMMANDLINE
    wrong = {
        "'' is neither a FILE nor the NAME of a saved workflow": not given["workflow"],
        "--config is for --local; a flowd that runs has its own settings": (
            given["config"] is not None and not local
        ),
        "--with is for --local; `flowd apply` saves definitions": given["beside"] and not local,
        "--local runs on a flowd of its own; --url names another one": local and has_url,
        "--local runs on a flowd of its own; --profile names another one": (
            local and names_profile(ctx)
        ),
        "--key is for a flowd that runs; --local begins anew each time": (
            given["key"] is not None and local
        ),
        "--timeout is how long to wait, and --no-wait does not": (
            given["no_wait"] and given["timeout"] is not None
        ),
        "--local ends with what it runs; without it, --no-wait leaves at once": (
            local and given["no_wait"]
        ),
        "--local runs a FILE; `flowd definitions get NAME` prints a saved workflow": (
            local and is_saved
        ),
    }
    for message, is_said in wrong.items():
        if is_said:
            raise click.UsageError(message)


def _is_saved(workflow: str) -> bool:
    """Whether it names a saved workflow, and no file."""
    # In a folder that may not be looked into there is none.
    is_there = os.path.exists(workflow) and not os.path.isdir(workflow)  # noqa: PTH110, PTH112
    is_file = is_there or Path(workflow).suffix in (".json", ".yaml", ".yml")
    return is_name(workflow) and not is_file


def _submit(
    definition: bytes, given_input: dict[str, Any] | None, key: str | None, client: Client
) -> str:
    return client.submit(definition, trigger=True, input=given_input, idempotency_key=key)


def _start(
    name: str,
    given_input: dict[str, Any] | None,
    version: int | None,
    key: str | None,
    client: Client,
) -> str:
    from flowd.client import ApiError

    try:
        return client.run_definition(name, given_input, version=version, idempotency_key=key)
    except ApiError as error:
        if error.code == "unknown_definition" and version is None:
            click.echo(f"flowd: {plain(name)!r} is no file", err=True)
        raise


def _warn_of_saved(
    name: str, version: int | None, given_input: dict[str, Any] | None, client: Client
) -> None:
    from flowd.client import ClientError

    try:
        saved = client.saved_definition(name, version)["definition"]
    except ClientError:
        # It has started; who may not look is not warned.
        return
    warn_of_workflow(client, json.dumps(saved).encode(), None, name, given_input)


def _run(
    url: str | None,
    start: Callable[[Client], str],
    warn: Callable[[Client], None],
    timeout: float | None,
    output: str,
    file: str | None = None,
    *,
    waits: bool,
) -> None:
    from flowd.cli.watching import watch_execution

    with connected(url, file) as client:
        execution_id = start(client)
        warn(client)
        if not waits:
            _say_id(execution_id, output)
            return
        with said_to_run_on(execution_id):
            status = watch_execution(client, execution_id, timeout)
        show_end(client, execution_id, status, output)
