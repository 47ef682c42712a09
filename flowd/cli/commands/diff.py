"""`flowd diff`: what two executions have not in common."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import click

from flowd.cli.completing import complete_executions
from flowd.cli.exit_codes import FAILED
from flowd.cli.node_tree import run_order
from flowd.cli.remote import connected, find_id, plain, server_options, short, show_json
from flowd.cli.times import span

_MISSING = "(missing)"
_SHOWN_CHARS_MAX = 200


@click.command()
@server_options
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
@click.argument("first", metavar="A", shell_complete=complete_executions)
@click.argument("second", metavar="B", shell_complete=complete_executions)
def diff(url: str | None, output: str, first: str, second: str) -> None:
    """Compare two executions: definition, input, outputs and times.

    Exits with 0 if they differ only in their times, otherwise with 1.
    """
    with connected(url) as client:
        ids = [find_id(client, first), find_id(client, second)]
        definitions = [client.definition(one) for one in ids]
        summaries = [client.get(one) for one in ids]
        outputs = [client.results(one) for one in ids]
        nodes = [{node["node_id"]: node for node in client.nodes(one)} for one in ids]
    found = {
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
        show_json(found)
    else:
        _show(found, summaries)
    sys.exit(FAILED if found["definition"] or found["input"] or found["outputs"] else 0)


def differences(one: Any, other: Any, path: str = "") -> Iterator[dict[str, Any]]:
    """Each place where two values differ, with what is there in both."""
    if isinstance(one, dict) and isinstance(other, dict):
        for key in [*one, *(key for key in other if key not in one)]:
            place = f"{path}.{key}" if path else str(key)
            yield from differences(one.get(key, _MISSING), other.get(key, _MISSING), place)
    elif isinstance(one, list) and isinstance(other, list):
        for at in range(max(len(one), len(other))):
            a, b = (items[at] if at < len(items) else _MISSING for items in (one, other))
            yield from differences(a, b, f"{path}[{at}]")
    elif one != other or isinstance(one, bool) != isinstance(other, bool):
        yield {"path": path, "a": one, "b": other}


def first_difference(
    definitions: Sequence[Mapping[str, Any]], one: Mapping[str, Any], other: Mapping[str, Any]
) -> str | None:
    """The first node, in an order in which they run, whose output differs or is not there."""
    orders = [run_order(definition["dag"]["nodes"]) for definition in definitions]
    for node_id in dict.fromkeys(chain(*orders)):
        if one.get(node_id, _MISSING) != other.get(node_id, _MISSING):
            return node_id
    return None


def _show(found: Mapping[str, Any], summaries: Sequence[Mapping[str, Any]]) -> None:
    for side, one in zip("ab", summaries, strict=True):
        name, took = plain(str(one["name"])), span(one["duration_ms"])
        click.echo(f"{side}: {one['execution_id']} {name} {one['status']} {took}")
    for part in ("definition", "input", "outputs"):
        rows = found[part]
        click.echo(f"\n{part}: {_counted(len(rows))}")
        for row in rows:
            click.echo(
                f"  {plain(row['path'])}\n    a {_shown(row['a'])}\n    b {_shown(row['b'])}"
            )
    if found["first_difference"]:
        click.echo(f"\nthe first node that differs: {found['first_difference']}")
    click.echo("\ntimes:")
    for row in found["times"]:
        click.echo(f"  {row['node_id']}: a {span(row['ms'][0])}, b {span(row['ms'][1])}")


def _counted(count: int) -> str:
    return f"{count:,} difference{'s' * (count != 1)}" if count else "equal"


def _shown(value: Any) -> str:
    return _MISSING if value is _MISSING else short(value, _SHOWN_CHARS_MAX)
