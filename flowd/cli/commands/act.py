"""`flowd act`: what `cancel`, `rerun` and the others do to one execution, done to many."""

from __future__ import annotations

import sys
import uuid
from collections import Counter
from typing import Any, Final

import click

from flowd.cli.exit_codes import FAILED
from flowd.cli.numbers import WholeNumber
from flowd.cli.remote import (
    ask_first,
    connected,
    output_option,
    server_options,
    show_rows,
    yes_option,
)
from flowd.cli.times import clock, read_moment

ACTIONS: Final = ("cancel", "pause", "resume", "rerun", "delete")
EXECUTIONS_MAX: Final = 1_000


@click.command()
@server_options
@output_option
@click.argument("action", type=click.Choice(ACTIONS))
@click.option("--status", multiple=True, help="Executions in this state; may be repeated.")
@click.option("--name", help="Executions with this name; may end with `*`.")
@click.option("--label", multiple=True, metavar="NAME:VALUE", help="With this label.")
@click.option("--since", callback=read_moment, metavar="TIME", help="Submitted after this time.")
@click.option("--until", callback=read_moment, metavar="TIME", help="Submitted before this time.")
@click.option(
    "-n", "--limit", type=WholeNumber(1, EXECUTIONS_MAX), default=EXECUTIONS_MAX, show_default=True
)
@click.option("--preview", is_flag=True, help="Only list them.")
@yes_option
def act(
    url: str | None,
    output: str,
    action: str,
    limit: int,
    preview: bool,
    yes: bool,
    **filters: Any,
) -> None:
    """Cancel, pause, resume, rerun or delete many executions.

    Those that pass all the options, the newest first. Each is acted on by itself; the exit code is
    1 where one was refused. A rerun is of the definition that was run before: with a corrected one
    it is `flowd rerun ID --with FILE`.
    """
    if not any(filters.values()):
        raise click.UsageError("say which: --status, --name, --label, --since or --until")
    filters["status"] = [one.upper() for one in filters["status"]]
    given = {name: value for name, value in filters.items() if value}
    with connected(url) as client:
        rows = list(client.list(count_max=limit, **given))
        if preview:
            _show(rows, output)
            return
        if not rows:
            click.echo("there is no such execution", err=True)
            return
        if not yes:
            ask_first(f"{action} {_counted(rows)}?", "nothing was done")
        ids = [row["execution_id"] for row in rows]
        # Under a key, so that a request which is sent again runs nothing again twice.
        answer = client.act(action, ids, idempotency_key=uuid.uuid4().hex)
    show_rows(
        answer["results"],
        output,
        {
            "ID": lambda row: row["execution_id"],
            "OUTCOME": lambda row: row["outcome"],
            "NEW": lambda row: row["new_execution_id"] or "-",
            "WHY NOT": lambda row: row["message"] or "-",
        },
    )
    if any(row["outcome"] != "done" for row in answer["results"]):
        sys.exit(FAILED)


def _counted(rows: list[dict[str, Any]]) -> str:
    """`3 executions (2 FAILED, 1 CANCELLED)`"""
    counts = Counter(row["status"] or "damaged" for row in rows)
    told = ", ".join(f"{count} {status}" for status, count in counts.most_common())
    return f"{len(rows)} execution{'s' if len(rows) > 1 else ''} ({told})"


def _show(rows: list[dict[str, Any]], output: str) -> None:
    show_rows(
        rows,
        output,
        {
            "ID": lambda row: row["execution_id"],
            "NAME": lambda row: row["name"] or "-",
            "STATUS": lambda row: row["status"] or "-",
            "SUBMITTED": lambda row: clock(row["submitted_ms"]),
        },
    )
