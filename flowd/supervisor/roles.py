"""The roles `flowd start` runs, as data for the supervisor."""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Callable
from functools import partial

from flowd.config import Settings
from flowd.store.embedded_server import EmbeddedServer
from flowd.supervisor.child import Kind, Role
from flowd.supervisor.restart_policy import START_LIMIT_S

Ready = Callable[[], None]

SERVER_NAME = "redis"


def build_roles(
    settings: Settings, listener: socket.socket, server: EmbeddedServer | None
) -> list[Role]:
    """Every process of this daemon."""
    roles = [] if server is None else [_server_role(server)]
    for number in range(1, settings.api.processes + 1):
        run = partial(run_api, settings, listener)
        roles.append(Role(f"api-{number}", Kind.API, run, start_limit_s=START_LIMIT_S))
    run = partial(run_scheduler, settings)
    roles.append(Role("scheduler", Kind.SCHEDULER, run, start_limit_s=START_LIMIT_S))
    for number in range(1, settings.workers.count + 1):
        name = f"worker-{number}"
        run = partial(run_worker, settings, name)
        roles.append(Role(name, Kind.WORKER, run, start_limit_s=START_LIMIT_S))
    return roles


def _server_role(server: EmbeddedServer) -> Role:
    return Role(
        SERVER_NAME,
        Kind.SERVER,
        server.run,
        is_ready=server.is_ready,
        # What keeps it from starting (a port, a damaged file) is the same at the next try.
        tries_max=1,
        # Lets it write its last transactions to disk when the supervisor is gone.
        death_signal=signal.SIGTERM,
    )


def load_what_children_share() -> None:
    """Import before forking: the children start at once and share the memory of the code.

    Nothing imported here may open a connection, start a thread or make an event loop.
    """
    import flowd.api.app
    import flowd.orchestrator.recovery
    import flowd.orchestrator.scheduler
    import flowd.workers.worker  # noqa: F401

    # Objects made so far stay out of the collector: its marks would unshare every page.
    gc.collect()
    gc.freeze()


def run_api(settings: Settings, listener: socket.socket, ready: Ready) -> None:
    from flowd.api.app import serve
    from flowd.workers.registry import built_in_registry

    serve(settings, listener, built_in_registry().names(), ready)


def run_scheduler(settings: Settings, ready: Ready) -> None:
    from flowd.orchestrator.scheduler import serve

    serve(settings, ready)


def run_worker(settings: Settings, name: str, ready: Ready) -> None:
    from flowd.workers.worker import serve

    serve(settings, name, ready)


def release_dead_worker(settings: Settings, pid: int, cause: str, is_blamed: bool) -> None:
    from flowd.orchestrator.recovery import release_dead_worker

    release_dead_worker(settings, pid, cause, is_blamed=is_blamed)
