"""For those who operate flowd: is it alive, is it ready, and what does it measure."""

from __future__ import annotations

from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from flowd.api import supervisor_status
from flowd.api.contract.problems import problem_response, summarize
from flowd.api.contract.route import Endpoint
from flowd.api.contract.schemas import Health, Readiness
from flowd.api.http.responses import json_response
from flowd.api.shared import shared_of

# Of one limit; those of more keys are not counted.
PLACES_MAX: Final = 10_000
MEDIA_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


async def show_liveness(_request: Request) -> Response:
    """Say that this process answers; it asks nobody else."""
    return json_response(Health(status="ok"))


async def show_readiness(request: Request) -> Response:
    """Check readiness: Redis takes writes, and a scheduler runs."""
    checks, problems = await shared_of(request.app).readiness()
    if problems:
        return problem_response("not_ready", summarize(problems), problems)
    return json_response(Readiness(status="ok", checks=checks))


async def show_measurements(request: Request) -> Response:
    """Show metrics, as text for Prometheus."""
    # Imported at the first scrape: most APIs are never asked.
    from flowd.api.measurements import measurements_text

    shared = shared_of(request.app)
    snapshot = await shared.store.health.metrics.snapshot()
    processes = await supervisor_status.processes(shared.control_socket)
    limits = await shared.store.tasks.limits.totals(PLACES_MAX)
    kept = await shared.store.tasks.cache.size()
    return Response(measurements_text(snapshot, processes, limits, kept), media_type=MEDIA_TYPE)


ROUTES = [
    Endpoint("GET", "/livez", show_liveness, scope="public", answers={200: Health}),
    Endpoint(
        "GET",
        "/readyz",
        show_readiness,
        scope="public",
        answers={200: Readiness},
        problems=("not_ready",),
    ),
    Endpoint(
        "GET",
        "/metrics",
        show_measurements,
        scope="read",
        answers={200: MEDIA_TYPE},
        problems=("store_unavailable",),
    ),
]
