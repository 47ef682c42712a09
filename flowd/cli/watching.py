"""Show an execution while it runs: a live table on a terminal, lines of changes elsewhere.

Messages go to stderr: what a command prints for others to read comes after it.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from flowd.cli.remote import STYLES, span

if TYPE_CHECKING:
    from rich.console import Group

    from flowd.client import Client

LOOK_EVERY_S: Final = 0.2
# More rows than this nobody reads while they change; those that run and failed come first.
ROWS_MAX: Final = 20
ENDED: Final = frozenset({"COMPLETED", "FAILED", "CANCELLED"})
_ORDER: Final = ("FAILED", "RUNNING", "RETRYING", "QUEUED", "PENDING", "CANCELLED", "COMPLETED")


def watch_execution(client: Client, execution_id: str, end_s: float | None = None) -> str | None:
    """Look on until it ends, and say how; None when the time is up (`end_s` is monotonic)."""
    from rich.console import Console

    console = Console(stderr=True)
    if not console.is_terminal:
        return _in_lines(client, execution_id, end_s)
    from rich.live import Live

    with Live(console=console, auto_refresh=False) as live:
        while True:
            status = client.status(execution_id)
            live.update(_picture(client, execution_id, status), refresh=True)
            if status in ENDED:
                return status
            if end_s is not None and time.monotonic() >= end_s:
                return None
            time.sleep(LOOK_EVERY_S)


def _in_lines(client: Client, execution_id: str, end_s: float | None) -> str | None:
    shown: dict[str, str] = {}
    click.echo(execution_id, err=True)
    while True:
        status = client.status(execution_id)
        for node in client.nodes(execution_id):
            state = str(node["state"])
            if shown.get(node["node_id"], "PENDING") != state:
                error = f": {node['error']}" if node["error"] else ""
                click.echo(f"{node['node_id']} {state}{error}", err=True)
            shown[node["node_id"]] = state
        if status in ENDED:
            click.echo(f"execution {status}", err=True)
            return status
        if end_s is not None and time.monotonic() >= end_s:
            return None
        time.sleep(LOOK_EVERY_S)


def _picture(client: Client, execution_id: str, status: str) -> Group:
    from rich.console import Group
    from rich.progress_bar import ProgressBar
    from rich.table import Table
    from rich.text import Text

    summary = client.get(execution_id)
    counts: Counter[str] = Counter(summary["counts"])
    done = sum(counts[state] for state in ENDED)
    total = sum(counts.values())
    told = "  ".join(f"{state} {counts[state]}" for state in _ORDER if counts[state])
    head = Text.assemble(
        f"{summary['name']} {execution_id} ", (status, STYLES.get(status, "")), f"  {told}"
    )
    table = Table(box=None, pad_edge=False, show_header=False)
    for node in _worth_showing(client, execution_id, total):
        state = str(node["state"])
        table.add_row(
            node["node_id"],
            Text(state, style=STYLES.get(state, "")),
            node["handler"],
            span(node["duration_ms"]),
            node["error"] or "",
        )
    hidden = total - table.row_count
    more = [Text(f"… and {hidden:,} more nodes", style="dim")] if hidden > 0 else []
    bar = ProgressBar(total=max(total, 1), completed=done, width=60)
    return Group(head, bar, table, *more)


def _worth_showing(client: Client, execution_id: str, total: int) -> list[Mapping[str, Any]]:
    if total <= ROWS_MAX:
        return list(client.nodes(execution_id))
    rows: list[Mapping[str, Any]] = []
    for state in ("FAILED", "RUNNING", "RETRYING", "QUEUED"):
        for node in client.nodes(execution_id, state=state, count_max=ROWS_MAX):
            rows.append(node)
            if len(rows) == ROWS_MAX:
                return rows
    return rows
