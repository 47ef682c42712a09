"""`flowd schedules`: what runs by itself, when, and how it goes."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from flowd.cli.completing import offering, place_of
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
from flowd.cli.workflow_file import read_input, read_schedule

# As many as one request is answered with.
_NEXT_MAX: Final = 100


def _names(ctx: click.Context) -> Iterator[CompletionItem]:
    from flowd.client import Client, ClientError

    try:
        with Client(*place_of(ctx)) as client:
            rows = list(client.schedules(count_max=1000))
    except ClientError:
        return
    for row in rows:
        yield CompletionItem(row["name"], help=_when(row))


name_argument = click.argument("name", shell_complete=offering(_names))


def _when(row: Mapping[str, Any]) -> str:
    if "workflow" not in row:
        return str(row["error"])
    if row["every_s"] is not None:
        return f"every {row['every_s']:,} s"
    return f"{row['cron']} {row['timezone']}"


def _next(row: Mapping[str, Any]) -> str:
    return "paused" if row.get("paused") else row.get("next") or "-"


@click.group()
def schedules() -> None:
    """List, change, hold up and run schedules.

    A schedule runs a saved definition at its times: `flowd help schedules`.
    """


@schedules.command("ls")
@server_options
@output_option
@click.option("-n", "--limit", type=WholeNumber(1), default=1000, show_default=True)
def list_all(url: str | None, output: str, limit: int) -> None:
    """List the schedules."""
    with connected(url) as client:
        show_rows(
            client.schedules(count_max=limit + 1),
            output,
            {
                "NAME": lambda row: row["name"],
                "RUNS": lambda row: row.get("workflow", "-"),
                "WHEN": _when,
                "NEXT": _next,
                "RUNNING": lambda row: str(len(row.get("running", ()))),
                "FIRED": lambda row: str(row.get("fired", "-")),
                "MISSED": lambda row: str(row.get("missed", "-")),
                "SKIPPED": lambda row: str(row.get("skipped", "-")),
            },
            key="name",
            limit=limit,
        )


@schedules.command()
@server_options
@table_or_json_option
@name_argument
def get(url: str | None, output: str, name: str) -> None:
    """Show a schedule: what it says, when it is due, and what it has done."""
    with connected(url) as client:
        row = client.schedule(name)
        delivery = client.schedule_callback(name) if row["callback"] else None
    if output == "json":
        show_json(row)
        return
    version = "" if row["version"] == "latest" else f" version {row['version']}"
    lines = [
        f"{row['name']}: runs {row['workflow']}{version}, {_when(row)}",
        f"next     {_next(row)}",
        f"overlap  {row['overlap']}",
        f"catch up {row['catch_up']}, within {row['catch_up_window_s']:,} s",
        f"fired {row['fired']:,}, missed {row['missed']:,}, skipped {row['skipped']:,} times",
    ]
    if row["input"]:
        lines.append(f"input    {json.dumps(row['input'], ensure_ascii=False)}")
    if row["last"]:
        lines.append(f"last     {row['last']['scheduled_at']} {row['last']['execution_id']}")
    lines += [f"running  {one}" for one in row["running"]]
    if row["queued"]:
        lines.append(f"waits    {row['queued']}, for that to end")
    if delivery:
        lines.append(f"callback {delivery['url']}{_told(delivery)}")
    if row["error"]:
        lines.append(f"error    {row['error']}; it is tried again")
    click.echo("\n".join(lines))


def _told(delivery: Mapping[str, Any]) -> str:
    """How telling it goes; nothing where there was nothing to tell."""
    error = f": {delivery['last_error']}" if delivery["last_error"] else ""
    if delivery["state"] == "PENDING" and delivery["next_ms"] is None:
        return ""
    if delivery["state"] == "PENDING":
        untold = f"missed {delivery['missed']:,}, skipped {delivery['skipped']:,}"
        return f", not told yet of {untold}{error}"
    return f", {delivery['state']} {clock(delivery['delivered_ms'])}".rstrip(" -") + error


@schedules.command()
@server_options
@table_or_json_option
@name_argument
@click.argument("file")
def put(url: str | None, output: str, name: str, file: str) -> None:
    """Make a schedule of a file, JSON or YAML, or change it; `-` is stdin."""
    body = read_schedule(file)
    with connected(url) as client:
        answer = client.put_schedule(name, _without_name(body, name))
    show_done(answer, output, f"{answer['message'].lower()}: {name}", key="name")


def _without_name(body: bytes, name: str) -> bytes:
    """A file for `flowd apply` says its name, too."""
    try:
        document = json.loads(body)
    except ValueError:
        return body
    if not isinstance(document, dict) or document.get("name") != name:
        return body
    return json.dumps({key: value for key, value in document.items() if key != "name"}).encode()


@schedules.command()
@server_options
@table_or_json_option
@name_argument
@yes_option
def rm(url: str | None, output: str, name: str, yes: bool) -> None:
    """Delete a schedule. What it has started goes on."""
    with connected(url) as client:
        if not yes:
            ask_first(f"delete the schedule {name}?", "nothing was deleted")
        client.delete_schedule(name)
    show_done({"name": name}, output, f"deleted {name}", key="name")


@schedules.command()
@server_options
@table_or_json_option
@name_argument
def pause(url: str | None, output: str, name: str) -> None:
    """Pause a schedule; nothing is made up for later."""
    with connected(url) as client:
        client.pause_schedule(name)
    show_done({"name": name, "paused": True}, output, f"paused {name}", key="name")


@schedules.command()
@server_options
@table_or_json_option
@name_argument
def resume(url: str | None, output: str, name: str) -> None:
    """Resume a schedule from now on."""
    with connected(url) as client:
        client.resume_schedule(name)
    show_done({"name": name, "paused": False}, output, f"resumed {name}", key="name")


@schedules.command()
@server_options
@table_or_json_option
@name_argument
@click.option("--force", is_flag=True, help="Also beside an execution that has not ended.")
@click.option(
    "--input",
    "inputs",
    multiple=True,
    metavar="NAME=VALUE",
    help="A value over the input of the schedule; may be repeated.",
)
@click.option("--key", metavar="TEXT", help="Idempotency-Key: the same again runs it once.")
def run(
    url: str | None, output: str, name: str, force: bool, inputs: tuple[str, ...], key: str | None
) -> None:
    """Run a schedule now, and print the id of the execution.

    It obeys its `overlap`, so it may be refused, or wait for another one to end. With an input it
    never waits: it is refused.
    """
    given_input = read_input(inputs)
    with connected(url) as client:
        execution_id = client.run_schedule(
            name, force=force, input=given_input, idempotency_key=key
        )
    if output == "json":
        show_json({"name": name, "execution_id": execution_id})
    else:
        click.echo(execution_id)


@schedules.command("next")
@server_options
@table_or_json_option
@name_argument
@click.option("-n", "--count", type=WholeNumber(1, _NEXT_MAX), default=5, show_default=True)
def show_next(url: str | None, output: str, name: str, count: int) -> None:
    """Print the next times of a schedule."""
    with connected(url) as client:
        times = client.next_times(name, count)
        is_paused = client.schedule(name)["paused"]
    if output == "json":
        show_json(times)
    else:
        click.echo("\n".join(times))
    if is_paused:
        message = f"it is paused: nothing starts until `flowd schedules resume {name}`"
        click.echo(message, err=True)
