"""What the routes of one application share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette
from starlette.requests import Request

from flowd.api.event_feed import EventFeed
from flowd.api.http.responses import requested_idempotency_key
from flowd.api.shared_check import SharedCheck
from flowd.api.waiting import Waiting
from flowd.api.workflow_check import WorkflowCheck
from flowd.diagnosis.observer import Observer
from flowd.diagnosis.readiness import Verdict
from flowd.handlers.registry import Registry
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.saved import SavedWorkflows
from flowd.store import Store
from flowd.store.executions import now_ms
from flowd.store.idempotency import Claimed
from flowd.workflow.ids import new_execution_id


@dataclass(slots=True)
class Shared:
    """`control_socket` is that of the supervisor, where there is one; `openapi` is the document
    and `handlers` the list of them once somebody has asked for it."""

    store: Store
    plans: Plans
    check_workflow: WorkflowCheck
    saved: SavedWorkflows
    feed: EventFeed
    waiting: Waiting
    observer: Observer
    readiness: SharedCheck[Verdict]
    body_bytes_max: int
    registry: Registry
    control_socket: Path | None = None
    openapi: bytes | None = None
    handlers: bytes | None = None


def shared_of(app: Starlette) -> Shared:
    shared: Shared = app.state.shared
    return shared


async def claim_execution(request: Request, asked: bytes) -> Claimed:
    """The id of the execution that a request is to make: a new one, or the one that the first
    request under its Idempotency-Key has claimed. `asked` is all that has to be equal."""
    fresh = new_execution_id(now_ms())
    if key := requested_idempotency_key(request):
        idempotency = shared_of(request.app).store.submissions.idempotency
        return await idempotency.claim(key, asked, fresh)
    return Claimed(fresh, "", is_deleted=False)
