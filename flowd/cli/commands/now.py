"""`flowd now`: what needs somebody."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import click

from flowd.cli.remote import (
    connected,
    plain,
    server_options,
    show_json,
    show_table,
    table_or_json_option,
)
from flowd.cli.times import clock

# Of each kind of thing, what it is, and how to go on. That of `health` is in its sentence.
_KINDS: Final[Mapping[str, tuple[str, str]]] = {
    "failed": ("failed within a day", "`flowd explain ID`, `flowd diff ID`, `flowd rerun ID`"),
    "missed": ("missed within a day", "`flowd schedules get NAME`, `flowd schedules run NAME`"),
    "waiting_for_signal": ("waiting for an answer", "`flowd approve ID NODE`, `flowd reject`"),
    "retrying": ("between two attempts", "`flowd explain ID NODE`"),
    "dead_letter": ("given up", "`flowd dlq list`"),
    "stuck": ("not to be continued", "`flowd doctor`"),
}

# What shows all of a kind, where there are more than here.
_ALL: Final = {"failed": "flowd ls --status failed", "dead_letter": "flowd dlq list"}
# What its time is, where that is no beginning.
_TIMES: Final = {"retrying": "NEXT ATTEMPT"}


@click.command()
@server_options
@table_or_json_option
def now(url: str | None, output: str) -> None:
    """Show what needs you: what failed, waits or was given up.

    That failed or was missed within a day, waits for an answer, is between two attempts, was given
    up or cannot be continued: of each up to five, and the commands to go on with.
    """
    with connected(url) as client:
        overview = client.overview()
    if output == "json":
        show_json(overview)
        return
    click.echo(plain(overview["health"]["sentence"]))
    kinds = [one for one in overview["attention"] if one["kind"] in _KINDS]
    for one in kinds:
        _show(one)
    if not overview["attention"] and overview["health"]["ok"]:
        click.echo("\nnothing needs you")


def _show(found: Mapping[str, Any]) -> None:
    what, how = _KINDS[found["kind"]]
    sample = found["sample"]
    count = f"more than {len(sample)}" if found["count"] is None else f"{found['count']:,}"
    click.echo(f"\n{what}: {count}; {how}")
    show_table(
        ("ID", "NODE", "NAME", _TIMES.get(found["kind"], "SINCE"), "TEXT"),
        [
            (
                one["execution_id"] or one["letter_id"] or "-",
                one["node_id"] or "-",
                one["name"] or "-",
                clock(one["at_ms"]),
                one["text"] or "",
            )
            for one in sample
        ],
    )
    if found["count"] != len(sample) and (command := _ALL.get(found["kind"])):
        click.echo(f"these are the first {len(sample)}; `{command}` shows all")
