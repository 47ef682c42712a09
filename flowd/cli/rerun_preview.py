"""What a rerun does, or would do, node by node."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from flowd.cli.remote import plain, show_json, show_table

_FATES: Final = {
    "runs": "runs",
    "reused": "is reused",
    "left_out": "stays failed",
    "removed": "is removed",
}
# Nobody reads more beside the id of an execution.
_LINES_MAX: Final = 50


def show_preview(answer: dict[str, Any], output: str) -> None:
    if output == "json":
        show_json(answer)
    else:
        show_table(("NODE", "", "WHY"), list(_rows(answer)))


def show_fates(answer: dict[str, Any]) -> None:
    """The same for people, beside what is printed for programs."""
    rows = list(_rows(answer))
    for node_id, fate, why in rows[:_LINES_MAX]:
        click.echo(plain(f"{node_id} {fate}: {why}"), err=True)
    if len(rows) > _LINES_MAX:
        more = len(rows) - _LINES_MAX
        click.echo(f"… and {more:,} more nodes; --preview lists all of them", err=True)


def _rows(answer: dict[str, Any]) -> Iterator[tuple[str, str, str]]:
    for name, fate in _FATES.items():
        for one in answer.get(name, ()):
            yield one["node_id"], fate, one["why"]
