"""What the routes of one application share."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from starlette.applications import Starlette

from flowd.api.event_feed import EventFeed
from flowd.api.shared_check import SharedCheck
from flowd.api.waiting import Waiting
from flowd.api.workflow_check import WorkflowCheck
from flowd.diagnosis.observer import Observer
from flowd.diagnosis.readiness import Verdict
from flowd.handlers.registry import Registry
from flowd.orchestrator.plans import Plans
from flowd.orchestrator.saved import SavedWorkflows
from flowd.store import Store


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
