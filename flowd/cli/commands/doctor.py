"""`flowd doctor`: whether everything in Redis adds up."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

import click

from flowd.cli.exit_codes import FAILED
from flowd.cli.options import config_option, data_dir_option, running_settings_of
from flowd.cli.remote import plain, show_json, show_table
from flowd.cli.times import span

if TYPE_CHECKING:
    from flowd.config import Settings
    from flowd.diagnosis.doctor import Examination

VIOLATIONS_SHOWN_MAX = 20


@click.command()
@config_option
@data_dir_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def doctor(config: Path | None, data_dir: str | None, output: str) -> None:
    """Check that everything flowd keeps in Redis is consistent. Changes nothing.

    Connects to Redis directly. Its last line is the verdict. Exits with 0 if all is well, warnings
    included, otherwise with 1. Checks up to three
    times, so that changes in progress are not reported.
    """
    from flowd.supervisor.embedded_server import join_embedded

    settings = join_embedded(running_settings_of(config, redis__data_dir=data_dir))
    examination = asyncio.run(_examine(settings))
    if output == "json":
        show_json({"is_sound": examination.is_sound, **asdict(examination)})
    else:
        _show(examination)
    sys.exit(0 if examination.is_sound else FAILED)


async def _examine(settings: Settings) -> Examination:
    from flowd.diagnosis.doctor import examine
    from flowd.store import open_store

    store = open_store(settings)
    try:
        return await examine(store)
    finally:
        await store.close()


def _show(examination: Examination) -> None:
    from flowd.replicas import describe

    rows = [
        ("FAILED" if check.violations else "ok", check.rule, f"{check.counted:,}")
        for check in examination.checks
    ]
    if examination.queue is not None:
        queue = examination.queue
        waiting = f"{queue.waiting:,}, the oldest entry for {span(queue.oldest_age_ms)}"
        rows += [
            ("-", "nodes that wait for a worker", waiting if queue.entries else "0"),
            ("-", "nodes that a worker holds", f"{queue.in_flight:,}"),
            ("-", "workers", f"{examination.workers:,}"),
            ("-", "dead letters, see `flowd dlq list`", f"{examination.dead_letters:,}"),
        ]
    if examination.replicas:
        rows.append(("-", "replicas of this Redis", describe(examination.replicas)))
    show_table(("RESULT", "WHAT", "COUNT"), rows)
    for risk in examination.risks:
        click.echo(plain(f"WARNING this Redis may lose work: {risk}"))
    for check in examination.checks:
        for violation in check.violations[:VIOLATIONS_SHOWN_MAX]:
            click.echo(plain(f"FAILED {violation}"))
        if len(check.violations) > VIOLATIONS_SHOWN_MAX:
            hidden = len(check.violations) - VIOLATIONS_SHOWN_MAX
            click.echo(f"FAILED … and {hidden:,} more where {check.rule}")
    click.echo(verdict(examination))


def verdict(examination: Examination) -> str:
    """The last line: whether all is well, and what to do if not."""
    count = sum(len(check.violations) for check in examination.checks)
    if count:
        things = "1 thing" if count == 1 else f"{count:,} things"
        return (
            f"not healthy: {things} to mend; a flowd that runs mends what it can within a minute, "
            "the doctor nothing: ask it again then; `flowd help redis-keys` says what is mended"
        )
    risks = len(examination.risks)
    return f"healthy, with {risks:,} warning{'s' * (risks > 1)}" if risks else "healthy"
