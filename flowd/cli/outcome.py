"""Wait for an execution, and print what came of it."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import click

from flowd.cli.exit_codes import FAILED
from flowd.cli.numbers import Number
from flowd.cli.remote import plain, short, show_json
from flowd.cli.times import span

if TYPE_CHECKING:
    from flowd.client import Client

# Of outputs and of errors; nobody reads more at the end of a run.
_LINES_MAX: Final = 10
_VALUE_CHARS_MAX: Final = 100

wait_option = click.option(
    "--wait", is_flag=True, help="Wait until it has ended, and print the outputs."
)
timeout_option = click.option(
    "--timeout", type=Number(min=0), metavar="SECONDS", help="Wait at most this long."
)


def check_timeout(timeout: float | None, *, waits: bool) -> None:
    if timeout is not None and not waits:
        raise click.UsageError("--timeout is how long to --wait")


def wait_and_show(client: Client, execution_id: str, timeout_s: float | None, output: str) -> None:
    """Wait in silence, print the results, and leave with the exit code that says how it ended."""
    with said_to_run_on(execution_id):
        click.echo(execution_id, err=True)
        status = client.wait(execution_id, timeout_s)
    show_end(client, execution_id, status, output)


@contextmanager
def said_to_run_on(execution_id: str) -> Iterator[None]:
    """Whoever leaves before the end hears how to follow it, and how to end it."""
    try:
        yield
    except (KeyboardInterrupt, TimeoutError):
        click.echo(
            f"\nit runs on: `flowd watch {execution_id}` follows it, "
            f"`flowd cancel {execution_id}` ends it",
            err=True,
        )
        raise


def show_end(
    client: Client, execution_id: str, status: str, output: str, *, is_kept: bool = True
) -> None:
    """Print what came of it, and leave with the exit code that says so. One that is not kept is
    gone after that."""
    if output == "id":
        click.echo(execution_id)
    elif output == "table" and sys.stdout.isatty():
        _show_summary(client, execution_id, _worth(client, execution_id, status))
        where = f"`flowd results {execution_id}`" if is_kept else "-o json"
        click.echo(f"{where} prints every output")
    else:
        results, worth = client.results(execution_id), _worth(client, execution_id, status)
        whole = {"execution_id": execution_id, "status": status, "results": results, **worth}
        show_json(whole if output == "json" else worth.get("output", results))
    sys.exit(0 if status == "COMPLETED" else FAILED)


def _worth(client: Client, execution_id: str, status: str) -> dict[str, Any]:
    """Its `output`, where its definition has one and it completed."""
    if status != "COMPLETED" or "output" not in client.definition(execution_id):
        return {}
    return {"output": client.output(execution_id)}


def _show_summary(client: Client, execution_id: str, worth: Mapping[str, Any]) -> None:
    """A line of the whole, what failed, and its output, or those nobody in the workflow reads."""
    summary = client.get(execution_id)
    counts = ", ".join(f"{count:,} {state}" for state, count in summary["counts"].items())
    name = plain(str(summary["name"]))
    click.echo(f"{name} {summary['status']} in {span(summary['duration_ms'])}: {counts}")
    for node in client.nodes(execution_id, state="FAILED", count_max=_LINES_MAX):
        click.echo(f"  {node['node_id']} failed: {plain(node['error'] or '')}")
    if "output" in worth:
        click.echo(f"  output {short(worth['output'], _VALUE_CHARS_MAX)}")
        return
    ends = _last_nodes(client.definition(execution_id))
    for node_id in ends[:_LINES_MAX]:
        node = client.node(execution_id, node_id)
        if node["state"] == "COMPLETED":
            click.echo(f"  {node_id} {short(node['output'], _VALUE_CHARS_MAX)}")
    if len(ends) > _LINES_MAX:
        click.echo(f"  … and {len(ends) - _LINES_MAX:,} more outputs")


def _last_nodes(definition: Mapping[str, Any]) -> list[str]:
    nodes = definition["dag"]["nodes"]
    read = {above for node in nodes for above in node["dependencies"]}
    return [node["id"] for node in nodes if node["id"] not in read]
