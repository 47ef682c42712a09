"""`flowd redis-cli`: the redis-cli of this machine, connected and logged in as flowd is."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, unquote, urlsplit

import click

from flowd.cli.options import config_option, data_dir_option, running_settings_of
from flowd.config import EMBEDDED_USER

if TYPE_CHECKING:
    from flowd.config import RedisSettings

_PROGRAMS = ("redis-cli", "valkey-cli")
_TLS_OPTIONS = {
    "ssl_ca_certs": "--cacert",
    "ssl_ca_path": "--cacertdir",
    "ssl_certfile": "--cert",
    "ssl_keyfile": "--key",
    "ssl_server_name": "--sni",
}
# The list of processes shows arguments to everybody, and variables to their owner alone.
_VARIABLES = ("REDISCLI_AUTH", "VALKEYCLI_AUTH")


@click.command(
    "redis-cli",
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
)
@config_option
@data_dir_option
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def redis_cli(config: Path | None, data_dir: str | None, arguments: tuple[str, ...]) -> None:
    """Run redis-cli on the Redis that flowd uses, with every right flowd has.

    `flowd redis-cli GET workflow:ID:status` runs one command; without one it is interactive.
    """
    from flowd.supervisor.embedded_server import join_embedded

    redis = join_embedded(running_settings_of(config, redis__data_dir=data_dir)).redis
    if redis.sentinels is not None:
        from flowd.store.primary import locate_primary

        redis = locate_primary(redis)
    program = next(filter(None, map(shutil.which, _PROGRAMS)), None)
    if program is None:
        raise click.ClickException(
            "there is no redis-cli and no valkey-cli on PATH; install one, on Debian with "
            "`apt install redis-tools`"
        )
    user, password = _login(redis)
    environ = os.environ | (dict.fromkeys(_VARIABLES, password) if password else {})
    named = ["--user", user] if user and password else []
    os.execve(program, [program, *_place(redis), *named, *arguments], environ)


def _login(redis: RedisSettings) -> tuple[str, str]:
    if redis.socket_path:
        return EMBEDDED_USER, redis.socket_password or ""
    parts = urlsplit(redis.url or "")
    return unquote(parts.username or ""), unquote(parts.password or "")


def _place(redis: RedisSettings) -> Iterator[str]:
    parts = urlsplit(redis.url or "")
    socket_path = redis.socket_path or (parts.path if parts.scheme == "unix" else None)
    if socket_path:
        yield from ("-s", _kept_open(socket_path))
    elif redis.url:
        yield from ("-h", parts.hostname or "localhost", "-p", str(parts.port or 6379))
    else:
        yield from ("-h", redis.host, "-p", str(redis.port))
    if parts.scheme == "rediss":
        yield from _tls(parse_qs(parts.query))
    db = parts.path.strip("/") if parts.scheme in ("redis", "rediss") else ""
    if (db or str(redis.db)) != "0":
        yield from ("-n", db or str(redis.db))


def _tls(query: Mapping[str, Sequence[str]]) -> Iterator[str]:
    yield "--tls"
    for name, option in _TLS_OPTIONS.items():
        for value in query.get(name, ()):
            yield from (option, value)
    if "none" in query.get("ssl_cert_reqs", ()):
        yield "--insecure"


def _kept_open(socket_path: str) -> str:
    """A path through a descriptor of ours is good in the program that takes our place too."""
    if socket_path.startswith("/proc/self/fd/"):
        os.set_inheritable(int(socket_path.split("/")[4]), True)
    return socket_path
