"""`flowd ls`, `get`, `definition`, `watch`, `results`, `explain`: look at executions."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

import click

from flowd.cli.exit_codes import FAILED
from flowd.cli.numbers import WholeNumber
from flowd.cli.progress import ENDED, with_children, with_progress
from flowd.cli.remote import (
    as_commands,
    connected,
    execution_argument,
    find_id,
    of_an_execution,
    output_option,
    plain,
    server_options,
    short,
    show_block,
    show_done,
    show_json,
    show_rows,
    show_table,
    table_or_json_option,
    why,
)
from flowd.cli.times import clock, node_took, read_moment, span, took

if TYPE_CHECKING:
    from flowd.client import Client

INPUT_CHARS_MAX: Final = 500

REPORTS_SHOWN_MAX: Final = 3
# Nodes whose attempts are listed.
RETRIED_SHOWN_MAX: Final = 10
# Reasons that a node has for the sake of its execution.
_OF_EXECUTION: Final = ("limit_reached", "not_triggered", "store_full", "paused")


@click.command()
@server_options
@output_option
@click.option("--status", multiple=True, help="Only executions in this state; may be repeated.")
@click.option("--name", help="Only executions with this name; may end with `*`.")
@click.option("--handler", help="Only executions with a node of this handler.")
@click.option(
    "--label",
    "labels",
    multiple=True,
    metavar="NAME:VALUE",
    help="Only executions with this label; may be repeated.",
)
@click.option("--roots", is_flag=True, help="None that is the child of another one.")
@click.option(
    "--after",
    "--since",
    "submitted_after",
    callback=read_moment,
    metavar="TIME",
    help="Submitted after this time: 5m, 2h or 7d ago, or 2026-01-31T09:00.",
)
@click.option(
    "--before",
    "--until",
    "submitted_before",
    callback=read_moment,
    metavar="TIME",
    help="Submitted before this time.",
)
@click.option("-n", "--limit", type=WholeNumber(1), default=20, show_default=True)
def ls(
    url: str | None,
    output: str,
    status: tuple[str, ...],
    name: str | None,
    handler: str | None,
    labels: tuple[str, ...],
    roots: bool,
    submitted_after: str | None,
    submitted_before: str | None,
    limit: int,
) -> None:
    """List executions, the newest first."""
    with connected(url) as client:
        rows = client.list(
            count_max=limit + 1,
            status=[one.upper() for one in status] or None,
            name=name,
            handler=handler,
            label=list(labels) or None,
            roots=roots or None,
            submitted_after=submitted_after,
            submitted_before=submitted_before,
        )
        if output == "table":
            rows = with_progress(client, rows)
        show_rows(
            rows,
            output,
            {
                "ID": lambda row: row["execution_id"],
                "NAME": lambda row: row["name"] or "-",
                "STATUS": lambda row: row["status"] or "-",
                "NODES": lambda row: row["progress"],
                "SUBMITTED": lambda row: clock(row["submitted_ms"]),
                "TOOK": _time_of,
            },
            limit=limit,
        )


def _time_of(row: Mapping[str, Any]) -> str:
    return took(row["duration_ms"], row["triggered_ms"], is_over=row["status"] in ENDED)


@click.command()
@of_an_execution
@click.argument("node", required=False)
def get(url: str | None, output: str, execution: str, node: str | None) -> None:
    """Show one execution and its nodes. ID may be the beginning of an id, or `@latest`.

    With a NODE: its config as its handler gets it, with the templates filled in, and its attempts.
    """
    with connected(url) as client:
        execution_id = find_id(client, execution)
        if output == "id":
            click.echo(execution_id if node is None else node)
            return
        if node is not None:
            detail = client.node(execution_id, node)
            if output == "json":
                show_json(detail)
            else:
                _show_node(detail)
            return
        summary, nodes = client.get(execution_id), list(client.nodes(execution_id))
        reports = _reports(client, execution_id, nodes)
        attempts = _attempts(client, execution_id, nodes)
        if output == "json":
            shown = [_with_more(one, reports, attempts) for one in nodes]
            show_json({**summary, "node_list": shown})
            return
        shown_nodes = list(with_children(client, nodes))
        submitted = client.definition(execution_id)
    _show_head(summary)
    _show_nodes(shown_nodes, submitted)
    if begun := {one: some for one, all_of_it in attempts.items() if (some := _begun(all_of_it))}:
        click.echo()
        _show_attempts(begun)
    for node_id, report in reports.items():
        click.echo()
        show_block(f"{node_id}:", report["traceback"] or _written(report["output"]))


def _show_nodes(nodes: Sequence[Mapping[str, Any]], submitted: Mapping[str, Any]) -> None:
    after = {one["id"]: ", ".join(one["dependencies"]) for one in submitted["dag"]["nodes"]}
    last = submitted["dag"].get("finally", ())
    after |= {one["id"]: ", ".join(one["dependencies"]) or "all others" for one in last}
    columns = ("NODE", "STATE", "HANDLER", "AFTER", "ATTEMPT", "WORKER", "TOOK", "ERROR")
    rows = [
        (
            node["node_id"],
            str(node["state"]),
            node["handler"],
            after.get(node["node_id"]) or "-",
            str(node["attempt"] or "-"),
            node["worker"] or "-",
            node_took(node),
            why(node) or "",
        )
        for node in nodes
    ]
    show_table(columns, rows)


def _show_node(node: Mapping[str, Any]) -> None:
    for name in ("node_id", "handler", "state", "attempt", "worker", "child", "error"):
        if node.get(name) is not None:
            click.echo(f"{name.replace('_', ' ')}: {plain(str(node[name]))}")
    click.echo(f"took: {node_took(node)}")
    if why(node) not in (None, node["error"]):
        click.echo(f"why: {plain(why(node) or '')}")
    rendered = node["rendered_config"]
    title = "config:" if rendered is not None else "config, as written: what it reads is not there"
    config = node["config"] if rendered is None else rendered
    show_block(title, json.dumps(config, indent=2, ensure_ascii=False))
    if node["output"] is not None:
        show_block("output:", json.dumps(node["output"], indent=2, ensure_ascii=False))
    if node["traceback"]:
        show_block("traceback:", node["traceback"])
    if begun := _begun(node["attempts"]):
        click.echo()
        _show_attempts({node["node_id"]: begun})


def _reports(client: Client, execution_id: str, nodes: list[Any]) -> dict[str, dict[str, Any]]:
    """What the first nodes that failed by themselves left beside their errors."""
    failed = [one["node_id"] for one in nodes if one["state"] == "FAILED" and one["attempt"]]
    details = {one: client.node(execution_id, one) for one in failed[:REPORTS_SHOWN_MAX]}
    reports = {
        one: {name: node[name] for name in ("traceback", "output")} for one, node in details.items()
    }
    return {one: report for one, report in reports.items() if any(report.values())}


def _attempts(client: Client, execution_id: str, nodes: list[Any]) -> dict[str, list[Any]]:
    """Of the first nodes that had several."""
    several = [one["node_id"] for one in nodes if (one["attempt"] or 0) > 1]
    return {one: client.attempts(execution_id, one) for one in several[:RETRIED_SHOWN_MAX]}


def _begun(attempts: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """None of a node that has begun once: what came before was its wait, for a place say."""
    begun = [one for one in attempts[:-1] if one["worker"] or one["error"]]
    return [*begun, *attempts[-1:]] if begun else ()


def _with_more(
    node: Mapping[str, Any],
    reports: Mapping[str, Mapping[str, Any]],
    attempts: Mapping[str, list[Any]],
) -> dict[str, Any]:
    node_id = node["node_id"]
    more = {"attempts": attempts[node_id]} if node_id in attempts else {}
    return {**node, **reports.get(node_id, {}), **more}


def _show_attempts(attempts: Mapping[str, Sequence[Mapping[str, Any]]]) -> None:
    columns = ("NODE", "ATTEMPT", "WORKER", "STARTED", "TOOK", "ERROR")
    rows = [
        (
            node_id,
            str(one["attempt"]),
            one["worker"] or "-",
            clock(one["started_ms"]),
            span(one["duration_ms"]),
            one["error"] or "",
        )
        for node_id, some in attempts.items()
        for one in some
    ]
    show_table(columns, rows)


def _written(output: Any) -> str:
    """What a program wrote before it failed."""
    streams = [(name, output.get(name)) for name in ("stdout", "stderr")]
    return "\n".join(f"{name}:\n{text.rstrip()}" for name, text in streams if text)


def _show_head(summary: Mapping[str, Any]) -> None:
    origin = ("rerun_of", "rerun_as", "definition", "schedule", "scheduled_at")
    for name in ("execution_id", "name", "status", *origin, "error"):
        if summary.get(name) is not None:
            also = " (cancelling)" if name == "status" and summary.get("cancelling") else ""
            click.echo(f"{name.replace('_', ' ')}: {plain(summary[name])}{also}")
    if labels := summary.get("labels"):
        click.echo(plain(f"labels: {', '.join(f'{name}:{one}' for name, one in labels.items())}"))
    if parent := summary.get("parent"):
        click.echo(f"parent: {parent['execution_id']} {parent['node_id']}")
    click.echo(f"submitted: {clock(summary['submitted_ms'])}")
    click.echo(f"took: {_time_of(summary)}")
    if (budget := summary["budget"]) is not None:
        click.echo(f"tokens: {budget['spent']:,} of {budget['tokens']:,}")
    elif summary["usage"]["calls"]:
        click.echo(f"tokens: {summary['usage']['total_tokens']:,}")
    if summary["input"]:
        click.echo(f"input: {short(summary['input'], INPUT_CHARS_MAX)}")
    click.echo()


@click.command()
@of_an_execution
def definition(url: str | None, output: str, execution: str) -> None:
    """Print the workflow of an execution as it was submitted; `flowd submit` accepts it."""
    with connected(url) as client:
        execution_id = find_id(client, execution)
        workflow = client.definition(execution_id)
    if output == "id":
        click.echo(execution_id)
    else:
        show_json(workflow)


@click.command()
@of_an_execution
def watch(url: str | None, output: str, execution: str) -> None:
    """Follow an execution until it ends. Exits with 0 if it completed, otherwise with 1."""
    from flowd.cli.watching import watch_execution

    with connected(url) as client:
        execution_id = find_id(client, execution)
        status = watch_execution(client, execution_id)
    if output != "table":
        show_done({"execution_id": execution_id, "status": status}, output, "")
    sys.exit(0 if status == "COMPLETED" else FAILED)


@click.command()
@of_an_execution
@click.argument("node", required=False)
def results(url: str | None, output: str, execution: str, node: str | None) -> None:
    """Print the outputs of an execution, or of one node, as JSON; with `-o id` only node ids."""
    with connected(url) as client:
        execution_id = find_id(client, execution)
        if node is None:
            outputs = client.results(execution_id)
        else:
            row = client.node(execution_id, node)
            value = {"error": row["error"]} if row["state"] == "FAILED" else row["output"]
            if value is None:
                raise click.ClickException(f"node {node!r} is {row['state']} and has no output")
            outputs = {node: value}
    if output == "id":
        for name in outputs:
            click.echo(name)
    else:
        show_json(outputs if node is None else outputs[node])


@click.command()
@server_options
@table_or_json_option
@execution_argument
@click.argument("node", required=False)
def explain(url: str | None, output: str, execution: str, node: str | None) -> None:
    """Explain why an execution, or one of its nodes, does not run."""
    with connected(url) as client:
        explanation = client.explain(find_id(client, execution), node)
    if output == "json":
        show_json(explanation)
        return
    click.echo(f"{explanation['execution_id']} is {explanation['status']}")
    # How it ended may be another node's doing.
    if node is None or explanation["status"] not in ENDED:
        click.echo(plain(as_commands(explanation["summary"])))
    if node is None:
        _show_once(explanation)
    for row in explanation["nodes"]:
        for reason in row["reasons"]:
            if node is not None or reason["code"] not in _OF_EXECUTION:
                message = as_commands(reason["message"])
                click.echo(plain(f"  {row['node_id']} {row['state']}: {message}"))
        if row["traceback"]:
            show_block("", row["traceback"])
        # A flowd of an earlier version says nothing of them.
        if row.get("attempts"):
            _show_attempts({row["node_id"]: row["attempts"]})
    if explanation["traceback"]:
        show_block("", explanation["traceback"])
    if explanation["more"]:
        click.echo(f"  … and {explanation['more']:,} more nodes")


def _show_once(explanation: Mapping[str, Any]) -> None:
    """What holds up the execution, and so each of its nodes."""
    reasons = [reason for row in explanation["nodes"] for reason in row["reasons"]]
    messages = [one["message"] for one in reasons if one["code"] in _OF_EXECUTION]
    for message in dict.fromkeys(messages):
        if message not in explanation["summary"]:
            click.echo(plain(f"  {as_commands(message)}"))
