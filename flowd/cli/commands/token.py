"""`flowd token`: make, list and revoke the tokens that open the API."""

from __future__ import annotations

import json
import re
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

import click

from flowd.cli.numbers import Number
from flowd.cli.options import config_option, data_dir_option, running_settings_of
from flowd.tokens import SCOPES, TOKENS_MAX, Token, change_tokens, new_token, read_tokens

_DAY_MS = 86_400_000
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@-]{0,63}")


@click.group()
def token() -> None:
    """Create, list and revoke the tokens of the API.

    Once there is a token, every request needs one. A running flowd notices within a second.
    """


@token.command()
@config_option
@data_dir_option
@click.option("--name", required=True, help="Who uses the token; the log names it.")
@click.option("--scope", required=True, type=click.Choice(SCOPES), help="What the token allows.")
@click.option("--expires-days", type=Number(min=0, min_open=True, max=36500))
def create(
    config: Path | None, data_dir: str | None, name: str, scope: str, expires_days: float | None
) -> None:
    """Create a token and print it; it cannot be shown again.

    `read` looks at everything, `trigger` also submits, starts and holds up, `admin` also deletes.
    """
    if not _NAME.fullmatch(name):
        raise click.UsageError(
            f"bad name {name!r}; use at most 64 letters, digits, `_`, `.`, `@` and `-`"
        )
    lifetime_ms = None if expires_days is None else int(expires_days * _DAY_MS)
    made, text = new_token(name, scope, lifetime_ms=lifetime_ms)

    def add(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
        if any(name in (one.name, one.id) for one in tokens):
            raise click.ClickException(f"there is a token {name!r} already; revoke it first")
        if len(tokens) >= TOKENS_MAX:
            raise click.ClickException(f"there are {TOKENS_MAX:,} tokens; revoke some first")
        return (*tokens, made)

    change_tokens(_data_dir(config, data_dir), add)
    if sys.stdout.isatty():
        click.echo("Keep it now, it cannot be shown again:", err=True)
    click.echo(text)


@token.command("list")
@config_option
@data_dir_option
@click.option("-o", "--output", type=click.Choice(["table", "json"]), default="table")
def show(config: Path | None, data_dir: str | None, output: str) -> None:
    """List the tokens with name, scope and times; their texts are not stored."""
    tokens = read_tokens(_data_dir(config, data_dir)) or ()
    if output == "json":
        click.echo(json.dumps([_record(one) for one in tokens], indent=2))
        return
    rows = [("ID", "NAME", "SCOPE", "CREATED", "EXPIRES")]
    rows += [(one.id, one.name, one.scope, _day(one.created_ms), _end(one)) for one in tokens]
    widths = [max(len(row[column]) for row in rows) for column in range(5)]
    for row in rows:
        click.echo("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))


@token.command()
@config_option
@data_dir_option
@click.argument("name_or_id")
def revoke(config: Path | None, data_dir: str | None, name_or_id: str) -> None:
    """Revoke a token: requests with it are rejected from then on."""

    def remove(tokens: tuple[Token, ...]) -> tuple[Token, ...]:
        left = tuple(one for one in tokens if name_or_id not in (one.name, one.id))
        if len(left) == len(tokens):
            raise click.ClickException(f"there is no token {name_or_id!r}; see `flowd token list`")
        return left

    left = change_tokens(_data_dir(config, data_dir), remove)
    click.echo(f"revoked {name_or_id}", err=True)
    if not left:
        click.echo("no token is left: every request is rejected until you create one", err=True)


def _data_dir(config: Path | None, data_dir: str | None) -> Path:
    return running_settings_of(config, redis__data_dir=data_dir).redis.data_dir


def _record(token: Token) -> dict[str, object]:
    return {
        "id": token.id,
        "name": token.name,
        "scope": token.scope,
        "created_ms": token.created_ms,
        "expires_ms": token.expires_ms,
    }


def _day(ms: int) -> str:
    return datetime.fromtimestamp(ms / 1000, UTC).strftime("%Y-%m-%d %H:%MZ")


def _end(token: Token) -> str:
    if token.expires_ms is None:
        return "never"
    has_expired = token.has_expired(time.time_ns() // 1_000_000)
    return f"{_day(token.expires_ms)} (over)" if has_expired else _day(token.expires_ms)
