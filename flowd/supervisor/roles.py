"""The roles `flowd start` runs, as data for the supervisor."""

from __future__ import annotations

import gc
import signal
import socket
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial

from flowd.config import Settings
from flowd.handlers.limits import IMPORT_LIMIT_S
from flowd.handlers.loading import has_own_handlers
from flowd.pulse import Pulse
from flowd.supervisor.child import Role, RoleKind
from flowd.supervisor.embedded_server import EmbeddedServer
from flowd.supervisor.lineup import WORKERS, Lineup, group_of
from flowd.supervisor.restart_policy import START_LIMIT_S

SERVER_NAME = "redis"


def build_lineup(
    settings: Settings,
    listener: socket.socket,
    server: EmbeddedServer | None,
    kept: Sequence[str] = (),
) -> Lineup:
    """Every process of this daemon, and its limits."""
    roles = [] if server is None else [_server_role(server)]
    # Both import the user's handlers, which may take as long as their trial may.
    limit_s = START_LIMIT_S + (IMPORT_LIMIT_S if has_own_handlers(settings) else 0)
    api = partial(run_api, settings, listener)
    roles += [
        _rolling_role(f"api-{number}", RoleKind.API, api, limit_s)
        for number in range(1, settings.api.processes + 1)
    ]
    run = partial(run_scheduler, settings)
    scheduler = _rolling_role("scheduler", RoleKind.SCHEDULER, run, START_LIMIT_S)
    # It runs no handler, so nothing holds it up.
    roles.append(replace(scheduler, clears_up=True))
    worker = partial(_worker_role, settings, limit_s)
    counts = {WORKERS: settings.workers.count}
    counts |= {group.name: group.size for group in settings.workers.groups}
    roles += [
        worker(f"{group}-{number}")
        for group, count in counts.items()
        for number in range(1, count + 1)
    ]
    return Lineup(
        roles,
        grace_s=settings.shutdown.grace_s,
        worker=worker,
        hung_after_s=settings.supervisor.hung_after_s,
        memory_max_mb=settings.workers.memory_max_mb,
        tasks_max=settings.workers.tasks_max,
        kept=kept,
        groups=[group.name for group in settings.workers.groups],
    )


def _worker_role(settings: Settings, limit_s: float, name: str) -> Role:
    for group in settings.workers.groups:
        if group.name == group_of(name):
            workers = replace(settings.workers, queues=group.queues)
            settings = replace(settings, workers=workers)
    role = _rolling_role(name, RoleKind.WORKER, partial(run_worker, settings, name), limit_s)
    return replace(role, queues=settings.workers.queues)


def _rolling_role(name: str, kind: RoleKind, run: Callable[[Pulse], None], limit_s: float) -> Role:
    return Role(name, kind, run, start_limit_s=limit_s, has_pulse=True)


def _server_role(server: EmbeddedServer) -> Role:
    return Role(
        SERVER_NAME,
        RoleKind.SERVER,
        server.run,
        is_ready=server.is_ready,
        look_after=server.look_after,
        explain_end=server.explain_end,
        # What keeps it from starting (a port, a damaged file) is the same at the next try.
        tries_max=1,
        # Lets it write its last transactions to disk when the supervisor is gone.
        death_signal=signal.SIGTERM,
    )


def load_what_children_share() -> None:
    """Import before forking: the children start at once and share the memory of the code.

    Nothing imported here may open a connection, start a thread or make an event loop.
    """
    # What is loaded stays: to look among it for garbage takes an eighth of the start.
    gc.disable()
    import flowd.api.app
    import flowd.orchestrator.recovery
    import flowd.scheduler.scheduler
    import flowd.workers.worker  # noqa: F401

    # Objects made so far stay out of the collector: its marks would unshare every page.
    gc.freeze()
    gc.enable()


def run_api(settings: Settings, listener: socket.socket, pulse: Pulse) -> None:
    from flowd.api.app import serve
    from flowd.handlers.loading import open_registry

    serve(settings, listener, open_registry(settings), pulse)


def run_scheduler(settings: Settings, pulse: Pulse) -> None:
    from flowd.scheduler.scheduler import serve

    serve(settings, pulse)


def run_worker(settings: Settings, name: str, pulse: Pulse) -> None:
    from flowd.handlers.loading import open_registry
    from flowd.workers.worker import serve

    serve(settings, name, open_registry(settings), pulse)


def release_dead_worker(
    settings: Settings,
    pid: int,
    cause: str,
    is_blamed: bool,
    suspects: tuple[str, ...],
    hung_s: float,
) -> None:
    from flowd.orchestrator.recovery import release_dead_worker

    release_dead_worker(settings, pid, cause, is_blamed=is_blamed, suspects=suspects, hung_s=hung_s)
