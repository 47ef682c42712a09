"""`flowd doctor`: whether everything in Redis adds up."""

from __future__ import annotations

import asyncio
import sys
from dataclasses import asdict
from pathlib import Path

import click

from flowd.cli.exit_codes import FAILED
from flowd.cli.options import config_option, data_dir_option, settings_of
from flowd.cli.remote import show_json

VIOLATIONS_SHOWN_MAX = 20


@click.command()
@config_option
@data_dir_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def doctor(config: Path | None, data_dir: str | None, output: str) -> None:
    """Check that everything flowd keeps in Redis adds up. Changes nothing.

    Speaks to Redis itself, with the settings of this folder. Ends with 0 when all is well, else
    with 1; what is under way at the moment counts as well.
    """
    from flowd.orchestrator.doctor import examine
    from flowd.socket_path import reachable_path
    from flowd.store import open_store

    settings = settings_of(config, redis__data_dir=data_dir)
    own = settings.redis.data_dir / "redis.sock"
    if settings.redis.url is None and settings.redis.mode != "external" and own.exists():
        settings = settings.with_redis_socket(reachable_path(own))

    async def look() -> list[dict[str, object]]:
        store = open_store(settings)
        try:
            return [asdict(check) for check in await examine(store)]
        finally:
            await store.close()

    checks = asyncio.run(look())
    if output == "json":
        show_json(checks)
    for check in checks if output == "table" else ():
        violations = check["violations"]
        assert isinstance(violations, tuple)
        click.echo(f"{'FAILED' if violations else 'ok':7} {check['rule']} ({check['counted']})")
        for one in violations[:VIOLATIONS_SHOWN_MAX]:
            click.echo(f"        {one}")
        if len(violations) > VIOLATIONS_SHOWN_MAX:
            click.echo(f"        … and {len(violations) - VIOLATIONS_SHOWN_MAX} more")
    sys.exit(FAILED if any(check["violations"] for check in checks) else 0)
