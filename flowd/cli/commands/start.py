"""`flowd start`: everything in the foreground of this terminal, or under systemd."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from flowd.cli.options import (
    config_option,
    data_dir_option,
    host_option,
    log_warnings,
    port_option,
    settings_to_run,
)
from flowd.config import PRODUCTION, Settings
from flowd.handlers.loading import has_own_handlers
from flowd.handlers.trial_import import import_handlers, try_handlers
from flowd.log_output import is_kept_quiet

if TYPE_CHECKING:
    import socket

    from flowd.supervisor.embedded_server import EmbeddedServer
    from flowd.supervisor.lineup import Lineup


@click.command()
@config_option
@host_option
@port_option
@click.option("--workers", type=int, help="Number of worker processes.")
@data_dir_option
def start(
    config: Path | None,
    host: str | None,
    port: int | None,
    workers: int | None,
    data_dir: str | None,
) -> None:
    """Run the API, the scheduler and the workers until Ctrl-C or SIGTERM.

    The first Ctrl-C waits for running nodes, the second does not.
    """
    load_settings = partial(
        settings_to_run,
        config,
        api__host=host,
        api__port=port,
        workers__count=workers,
        redis__data_dir=data_dir,
    )
    settings = load_settings()
    _open_standard_descriptors()
    # Before anything else is there: it forks.
    try_handlers(settings)
    _run(settings, load_settings)


def _run(settings: Settings, load_settings: Callable[[], Settings]) -> None:
    import setproctitle

    from flowd.api.http.limits import address_of
    from flowd.log import set_up_log
    from flowd.supervisor import roles
    from flowd.supervisor.embedded_server import choose_server
    from flowd.supervisor.listener import (
        bind_listener,
        require_tokens,
        take_passed_listener,
        url_of,
    )
    from flowd.supervisor.lock import DataDirLock
    from flowd.supervisor.supervisor import Hooks, Supervisor

    setproctitle.setproctitle("flowd: supervisor")
    set_up_log(process="supervisor", **asdict(settings.log))
    log_warnings(settings)
    lock = DataDirLock(settings.redis.data_dir)
    passed = take_passed_listener()
    listener = passed or bind_listener(settings.api)
    require_tokens(address_of(listener), settings.redis.data_dir)
    url = url_of(listener)
    server = choose_server(settings)
    if server is not None:
        settings = _prepare(server, settings, listener)
    hooks = Hooks(
        recover=partial(roles.release_dead_worker, settings),
        prepare=roles.load_what_children_share,
        close_listener=listener.close,
        announce=_announcement(settings, url, server),
        describe=partial(_description, settings, url, server),
        data_dir_missing=lock.is_gone,
        reload=partial(_reload, load_settings, settings, listener, server),
    )
    lineup = roles.build_lineup(settings, listener, server)
    try:
        with _explained(server):
            Supervisor(lineup, data_dir=settings.redis.data_dir, hooks=hooks).run()
    finally:
        # What systemd has bound stays for the next start.
        if passed is None and settings.api.socket is not None:
            settings.api.socket.unlink(missing_ok=True)
    lock.release()


@contextlib.contextmanager
def _explained(server: EmbeddedServer | None) -> Iterator[None]:
    """Let the embedded server say itself why it did not start."""
    from flowd.errors import CrashLoop, ServerFailed
    from flowd.supervisor.roles import SERVER_NAME

    try:
        yield
    except CrashLoop as error:
        if server is None or error.role != SERVER_NAME:
            raise
        reason = server.last_words() or str(error)
        raise ServerFailed(f"the embedded Redis server did not start:\n{reason}") from error


def _prepare(server: EmbeddedServer, settings: Settings, listener: socket.socket) -> Settings:
    """The settings with its socket and login."""
    from flowd.api.http.limits import address_of, is_local

    # As open as the API is, whose socket is for some, and closed in what serves others.
    address = address_of(listener)
    is_closed = settings.environment == PRODUCTION or address is None or not is_local(address)
    server.prepare(is_closed=is_closed)
    return settings.with_redis_socket(server.socket_path, server.password)


def _reload(
    load_settings: Callable[[], Settings],
    running: Settings,
    listener: socket.socket,
    server: EmbeddedServer | None,
) -> Lineup:
    """What is to run by the settings as they are now. Raises InvalidSettings."""
    from flowd.log import get_logger, set_up_log
    from flowd.supervisor import roles
    from flowd.supervisor.reload import keep_fixed

    settings, kept = keep_fixed(load_settings(), running)

    def set_up() -> None:
        set_up_log(process="supervisor", **asdict(settings.log))
        log_warnings(settings)
        if kept:
            get_logger(__name__).warning("settings.kept", settings=", ".join(kept))

    lineup = roles.build_lineup(settings, listener, server, kept)
    trial = partial(import_handlers, settings) if has_own_handlers(settings) else None
    return replace(lineup, trial=trial, set_up=set_up)


def _announcement(
    settings: Settings, url: str, server: EmbeddedServer | None
) -> Callable[[], None]:
    redis = settings.redis
    if server is None:
        where = f"the Redis at {redis.address}"
        if redis.mode == "auto" and redis.url is None:
            where = f"the Redis that was found at {redis.address}"
    else:
        asking = " with a password" if server.asks_password else ""
        tcp = f", port {redis.port}{asking}" if redis.port else ""
        where = f"its own Redis (data in {redis.data_dir}{tcp})"
    count = settings.workers.count + sum(group.size for group in settings.workers.groups)
    workers = {0: "no worker runs", 1: "1 worker runs"}.get(count, f"{count} workers run")

    def announce() -> None:
        # The shell has the terminal, and keeps it to itself: it would be told of by a signal.
        if is_kept_quiet(1, os.getpgrp()):
            return
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
