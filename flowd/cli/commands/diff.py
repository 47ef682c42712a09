"""`flowd diff`: what two executions have not in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import TYPE_CHECKING, Any

import click

from flowd.cli.completing import complete_executions
from flowd.cli.exit_codes import FAILED
from flowd.cli.node_tree import run_order
from flowd.cli.remote import (
    connected,
    find_id,
    plain,
    server_options,
    short,
    show_json,
    table_or_json_option,
)
from flowd.cli.times import span
from flowd.workflow.report import quote

if TYPE_CHECKING:
    from flowd.client import Client

_MISSING = "(missing)"
_SHOWN_CHARS_MAX = 200


@click.command()
@server_options
@table_or_json_option
@click.argument("first", metavar="A", shell_complete=complete_executions)
@click.argument("second", metavar="[B]", required=False, shell_complete=complete_executions)
def diff(url: str | None, output: str, first: str, second: str | None) -> None:
    """Compare two executions: definition, input, outputs and times.

    With one ID: the execution it is a rerun of, else the last one of its name that completed
    before, with that one. Exits with 0 if they differ only in their times, otherwise with 1.
    """
    with connected(url) as client:
        ids = [find_id(client, one) for one in (first, second) if one is not None]
        if second is None:
            ids.insert(0, _compared_with(client, ids[0]))
        definitions = [client.definition(one) for one in ids]
        summaries = [client.get(one) for one in ids]
        outputs = [client.results(one) for one in ids]
        nodes = [{node["node_id"]: node for node in client.nodes(one)} for one in ids]
    report = {
        "definition": list(differences(definitions[0], definitions[1])),
        "input": list(differences(summaries[0]["input"] or {}, summaries[1]["input"] or {})),
        "outputs": list(differences(outputs[0], outputs[1])),
        "first_difference": first_difference(definitions, *outputs),
        "times": [
            {"node_id": one, "ms": [node["duration_ms"], nodes[1][one]["duration_ms"]]}
            for one, node in nodes[0].items()
            if one in nodes[1]
        ],
    }
    if output == "json":
        show_json(report)
    else:
        _show(report, summaries)
    sys.exit(FAILED if report["definition"] or report["input"] or report["outputs"] else 0)


def _compared_with(client: Client, execution_id: str) -> str:
    summary = client.get(execution_id)
    if summary["rerun_of"]:
        return str(summary["rerun_of"])
    name, submitted_ms = str(summary["name"]), summary["submitted_ms"]
    for row in client.list(name=name, status=["COMPLETED"], submitted_before=submitted_ms):
        # A name that ends with `*` has asked for those that begin so.
        if row["name"] == name and row["execution_id"] != execution_id:
            return str(row["execution_id"])
    raise click.ClickException(
        f"no execution of {quote(name)} has completed before {execution_id}; name the one to "
        "compare it with"
    )


def differences(first: Any, second: Any, path: str = "") -> Iterator[dict[str, Any]]:
    """Each place where two values differ, with what is there in both."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in [*first, *(key for key in second if key not in first)]:
            place = f"{path}.{key}" if path else str(key)
            yield from differences(first.get(key, _MISSING), second.get(key, _MISSING), place)
    elif isinstance(first, list) and isinstance(second, list):
        for at in range(max(len(first), len(second))):
            a, b = (items[at] if at < len(items) else _MISSING for items in (first, second))
            yield from differences(a, b, f"{path}[{at}]")
    elif first != second or isinstance(first, bool) != isinstance(second, bool):
        yield {"path": path, "a": first, "b": second}


def first_difference(
    definitions: Sequence[Mapping[str, Any]], first: Mapping[str, Any], second: Mapping[str, Any]
) -> str | None:
    """The first node, in an order in which they run, whose output differs or is not there."""
    dags = [definition["dag"] for definition in definitions]
    orders = [run_order(part) for dag in dags for part in (dag["nodes"], dag.get("finally", ()))]
    for node_id in dict.fromkeys(chain(*orders)):
        if first.get(node_id, _MISSING) != second.get(node_id, _MISSING):
            return node_id
    return None


def _show(report: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]]) -> None:
    for side, summary in zip("ab", summaries, strict=True):
        name, took = plain(str(summary["name"])), span(summary["duration_ms"])
        click.echo(f"{side}: {summary['execution_id']} {name} {summary['status']} {took}")
    for part in ("definition", "input", "outputs"):
        rows = report[part]
        click.echo(f"\n{part}: {_counted(len(rows))}")
        for row in rows:
            click.echo(f"  {plain(row['path'])}\n    a {shown(row['a'])}\n    b {shown(row['b'])}")
    if report["first_difference"]:
        click.echo(f"\nthe first node that differs: {report['first_difference']}")
    click.echo("\ntimes:")
    for row in report["times"]:
        click.echo(f"  {row['node_id']}: a {span(row['ms'][0])}, b {span(row['ms'][1])}")


def _counted(count: int) -> str:
    return f"{count:,} difference{'s' * (count != 1)}" if count else "equal"


def shown(value: Any) -> str:
    return _MISSING if value is _MISSING else short(value, _SHOWN_CHARS_MAX)
