"""`flowd start`: everything in the foreground of this terminal, or under systemd."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowd.cli.options import (
    config_option,
    data_dir_option,
    host_option,
    port_option,
    settings_of,
)
from flowd.config import Settings

if TYPE_CHECKING:
    from flowd.store.embedded_server import EmbeddedServer


@click.command()
@config_option
@host_option
@port_option
@click.option("--workers", type=int, help="How many worker processes run.")
@data_dir_option
def start(
    config: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    data_dir: str | None,
) -> None:
    """Run the API, the scheduler and the workers until Ctrl-C or SIGTERM.

    A second Ctrl-C does not wait for nodes that run.
    """
    settings = settings_of(
        config,
        api__host=host,
        api__port=port,
        workers__count=workers,
        redis__data_dir=data_dir,
    )
    _open_standard_descriptors()
    _run(settings)


def _run(settings: Settings) -> None:
    import setproctitle

    from flowd.errors import CrashLoop, ServerFailed
    from flowd.log import set_up_log
    from flowd.store.embedded_server import choose_server
    from flowd.supervisor import roles
    from flowd.supervisor.listener import bind_listener, url_of
    from flowd.supervisor.lock import DataDirLock
    from flowd.supervisor.supervisor import Supervisor

    setproctitle.setproctitle("flowd: supervisor")
    set_up_log(level=settings.log.level, process="supervisor")
    lock = DataDirLock(settings.redis.data_dir)
    listener = bind_listener(settings.api)
    url = url_of(listener)
    server = choose_server(settings)
    if server is not None:
        server.prepare()
        settings = settings.with_redis_socket(server.socket_path)
    supervisor = Supervisor(
        roles.build_roles(settings, listener, server),
        data_dir=settings.redis.data_dir,
        grace_s=settings.shutdown.grace_s,
        recover=partial(roles.release_dead_worker, settings),
        prepare=roles.load_what_children_share,
        close_listener=listener.close,
        announce=_announcement(settings, url, server),
        describe=partial(_description, settings, url, server),
    )
    try:
        supervisor.run()
    except CrashLoop as error:
        if server is not None and error.role == roles.SERVER_NAME:
            reason = server.last_words() or str(error)
            raise ServerFailed(f"the embedded Redis server did not start:\n{reason}") from error
        raise
    lock.release()


def _announcement(
    settings: Settings, url: str, server: EmbeddedServer | None
) -> Callable[[], None]:
    redis = settings.redis
    if server is None:
        where = f"the Redis at {redis.address}"
    else:
        tcp = f", port {redis.port}" if redis.port else ""
        where = f"its own Redis (data in {redis.data_dir}{tcp})"
    count = settings.workers.count
    workers = {0: "no worker runs", 1: "1 worker runs"}.get(count, f"{count} workers run")

    def announce() -> None:
        # A terminal that has gone away is no reason to stop.
        with contextlib.suppress(OSError, ValueError, AttributeError):
            sys.stdout.write(f"flowd listens on {url} and uses {where}; {workers}\n")
            sys.stdout.flush()

    return announce


def _description(settings: Settings, url: str, server: EmbeddedServer | None) -> dict[str, Any]:
    redis = settings.redis
    return {
        "api": url,
        "redis": {
            "mode": "external" if server is None else "embedded",
            "address": redis.address if server is None else _tcp_address(settings),
            "socket": redis.socket_path,
        },
        "data_dir": str(redis.data_dir),
    }


def _tcp_address(settings: Settings) -> str | None:
    redis = settings.redis
    return f"{redis.host}:{redis.port}" if redis.port else None


def _open_standard_descriptors() -> None:
    """Started with `>&-` the next file opened would become our stdout."""
    for descriptor in range(3):
        try:
            os.fstat(descriptor)
        except OSError:
            # The lowest free number is this one.
            os.open(os.devnull, os.O_RDWR)
