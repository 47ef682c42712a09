"""The API: a Starlette application on a store, and the role that serves it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import uvloop
from starlette.applications import Starlette
from starlette.middleware import Middleware

from flowd.api.http_server import HttpServer
from flowd.api.problems import EXCEPTION_HANDLERS, UnforeseenErrors
from flowd.api.routers import executions, health, lifecycle, workflows
from flowd.config import Settings
from flowd.pulse import Pulse
from flowd.store import open_store

if TYPE_CHECKING:
    from flowd.api.validator import Handlers
    from flowd.store import Store


def create_app(store: Store, handlers: Handlers) -> Starlette:
    """The application; it closes the store when it stops.

    The store may be out of reach: requests that need it are then answered with a 503.
    """

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        yield
        await store.close()

    app = Starlette(
        routes=[*health.ROUTES, *workflows.ROUTES, *executions.ROUTES, *lifecycle.ROUTES],
        middleware=[Middleware(UnforeseenErrors)],
        exception_handlers=dict(EXCEPTION_HANDLERS),
        lifespan=lifespan,
    )
    app.state.store = store
    app.state.handlers = handlers
    return app


def serve(
    settings: Settings,
    listener: socket.socket,
    handlers: Handlers,
    pulse: Pulse,
) -> None:
    """Answer requests on a bound listener until SIGTERM or SIGINT; returns when all is answered.

    It is ready once connections are accepted. The store need not answer by then.
    """

    async def run() -> None:
        pulse.beat_on(asyncio.get_running_loop())
        app = create_app(open_store(settings), handlers)
        server = HttpServer(app, grace_s=settings.shutdown.grace_s, ready=pulse.ready)
        await server.serve_on(listener)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())
