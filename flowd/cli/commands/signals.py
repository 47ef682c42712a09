"""`flowd signal`, `approve` and `reject`: what a node that waits for a signal is sent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

import click
from click.shell_completion import CompletionItem

from flowd.cli.completing import offering, place_of
from flowd.cli.remote import (
    connected,
    execution_argument,
    find_id,
    output_option,
    server_options,
    short,
    show_done,
)
from flowd.cli.workflow_file import read_json
from flowd.workflow.states import NodeState

DATA_CHARS_SHOWN_MAX: Final = 100


def _nodes(ctx: click.Context) -> Iterator[CompletionItem]:
    """Those of the execution named before that take a signal and have not ended."""
    from flowd.client import Client, ClientError

    try:
        with Client(*place_of(ctx)) as client:
            rows = list(client.nodes(find_id(client, ctx.params["execution"])))
    except ClientError:
        return
    for row in rows:
        if row["handler"] == "signal" and not NodeState(row["state"]).is_terminal:
            yield CompletionItem(row["node_id"], help=row["state"])


node_argument = click.argument("node", shell_complete=offering(_nodes))
key_option = click.option(
    "--key",
    metavar="TEXT",
    help="Idempotency-Key: the same signal again is answered as the first time.",
)


@click.command()
@server_options
@output_option
@execution_argument
@node_argument
@click.option("--data", required=True, metavar="JSON", help="What the node waits for.")
@key_option
def signal(
    url: str | None, output: str, execution: str, node: str, data: str, key: str | None
) -> None:
    """Send data to a node that waits for a signal, or will.

    The first signal decides: `flowd signal ID NODE --data '{"approved": true}'`.
    """
    _send(url, output, execution, node, {"data": read_json("--data", data)}, key)


def _reason(_context: click.Context, _parameter: click.Parameter, text: str) -> str:
    if not text.strip():
        raise click.BadParameter("it is empty; say why, for whoever reads the node's error")
    return text


@click.command()
@server_options
@output_option
@execution_argument
@node_argument
@key_option
def approve(url: str | None, output: str, execution: str, node: str, key: str | None) -> None:
    """Approve a node that waits for a signal: send it {"approved": true}."""
    from flowd.client.calls import APPROVED

    _send(url, output, execution, node, {"data": APPROVED}, key)


@click.command()
@server_options
@output_option
@execution_argument
@node_argument
@click.option(
    "--reason",
    required=True,
    metavar="TEXT",
    callback=_reason,
    help="Why; it is the node's error.",
)
@key_option
def reject(
    url: str | None, output: str, execution: str, node: str, reason: str, key: str | None
) -> None:
    """Reject a node that waits for a signal; it fails, with the reason as its error."""
    _send(url, output, execution, node, {"reject": reason}, key)


def _send(
    url: str | None,
    output: str,
    execution: str,
    node: str,
    body: Mapping[str, Any],
    key: str | None,
) -> None:
    with connected(url) as client:
        execution_id = find_id(client, execution)
        if "reject" in body:
            decision = client.reject(execution_id, node, body["reject"], key)
            said = f"rejected node {node} of {execution_id}"
        else:
            decision = client.signal(execution_id, node, body["data"], key)
            said = (
                f"sent node {node} of {execution_id}: {short(body['data'], DATA_CHARS_SHOWN_MAX)}"
            )
    answer = {"execution_id": execution_id, "node_id": node, "decision": decision}
    show_done(answer, output, said)
