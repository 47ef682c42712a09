"""The API: a Starlette application on a store, and the role that serves it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from functools import partial
from typing import TYPE_CHECKING

import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware
from starlette.types import ASGIApp

from flowd.api.contract.problems import ErrorAnswers
from flowd.api.contract.route import Endpoint, EndpointRouter
from flowd.api.event_feed import EventFeed
from flowd.api.http.auth import AuthMiddleware, Guard
from flowd.api.http.limits import address_of
from flowd.api.http.server import HttpServer
from flowd.api.routers import (
    actions,
    batch,
    cache,
    callbacks,
    dashboard,
    dead_letters,
    definitions,
    events,
    executions,
    explain,
    graph,
    health,
    items,
    lifecycle,
    limits,
    listing,
    logs,
    nodes,
    operations,
    overview,
    reference,
    schedules,
    sets,
    signals,
    statistics,
    workflows,
)
from flowd.api.shared import Shared, shared_of
from flowd.api.shared_check import SharedCheck
from flowd.api.supervisor_status import CONTROL_SOCKET_FILE
from flowd.api.waiting import Waiting
from flowd.api.workflow_check import WorkflowCheck
from flowd.config import ApiSettings, Settings
from flowd.diagnosis import readiness
from flowd.diagnosis.observer import Observer
from flowd.handlers.config_checks import config_checks
from flowd.handlers.registry import Registry, built_in_registry
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.saved import SavedWorkflows
from flowd.pulse import Pulse
from flowd.store import open_store

if TYPE_CHECKING:
    from flowd.store import Store
    from flowd.workflow.validator import Handlers


class Application(Starlette):
    def build_middleware_stack(self) -> ASGIApp:
        """Without Starlette's own layers for errors, which its first middleware answers."""
        app: ASGIApp = self.router
        for one in reversed(self.user_middleware):
            app = one.cls(app, *one.args, **one.kwargs)
        return app


def create_app(
    store: Store,
    handlers: Handlers,
    guard: Guard | None = None,
    check: WorkflowCheck | None = None,
    *,
    registry: Registry | None = None,
    shows_tracebacks: bool = False,
) -> Starlette:
    """The application; it closes the store when it stops. Without a guard anybody may do anything.

    The store may be out of reach: requests that need it are then answered with a 503.
    """

    plans, feed = Plans(store), EventFeed(store.events)
    check = check or WorkflowCheck(handlers)
    shared = Shared(
        store,
        plans,
        check,
        SavedWorkflows(store, plans, check, lambda: check.handlers_digest),
        feed,
        Waiting(store, feed),
        Observer(store, plans),
        SharedCheck(partial(readiness.check, store)),
        body_bytes_max=int((guard.api if guard else ApiSettings()).body_max_mb * 2**20),
        registry=registry or built_in_registry(),
    )

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        yield
        shared.feed.close()
        await store.close()

    routes = all_routes()
    gate = [] if guard is None else [Middleware(AuthMiddleware, guard=guard, routes=routes)]
    app = Application(
        middleware=[Middleware(ErrorAnswers, shows_tracebacks=shows_tracebacks), *gate],
    )
    app.router = EndpointRouter(routes, lifespan)
    app.state.shared = shared
    return app


def all_routes() -> list[Endpoint]:
    return [
        *health.ROUTES,
        *workflows.ROUTES,
        *batch.ROUTES,
        *actions.ROUTES,
        *statistics.ROUTES,
        *executions.ROUTES,
        *lifecycle.ROUTES,
        *definitions.ROUTES,
        *schedules.ROUTES,
        *limits.ROUTES,
        *cache.ROUTES,
        *sets.ROUTES,
        *signals.ROUTES,
        *events.ROUTES,
        *callbacks.ROUTES,
        *operations.ROUTES,
        *overview.ROUTES,
        *listing.ROUTES,
        *nodes.ROUTES,
        *logs.ROUTES,
        *graph.ROUTES,
        *items.ROUTES,
        *explain.ROUTES,
        *dead_letters.ROUTES,
        *reference.ROUTES,
        *dashboard.ROUTES,
    ]


def serve(
    settings: Settings,
    listener: socket.socket,
    registry: Registry,
    pulse: Pulse,
) -> None:
    """Answer requests on a bound listener until SIGTERM or SIGINT; returns when all is answered.

    It is ready once connections are accepted. The store need not answer by then.
    """

    handlers = config_checks(registry, settings)
    check = WorkflowCheck.forked(handlers)

    async def run() -> None:
        pulse.beat_on(asyncio.get_running_loop())
        guard = Guard(settings.api, settings.redis.data_dir, address_of(listener))
        app = create_app(
            open_store(settings),
            handlers,
            guard,
            check,
            registry=registry,
            shows_tracebacks=settings.shows_tracebacks,
        )
        shared = shared_of(app)
        shared.control_socket = settings.redis.data_dir / CONTROL_SOCKET_FILE
        server = HttpServer(
            app,
            grace_s=settings.shutdown.grace_s,
            ready=pulse.ready,
            stopping=shared.feed.close,
            connections_max=settings.api.connections_max,
        )
        await server.serve_on(listener)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
