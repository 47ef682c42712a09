"""Use flowd's HTTP API from Python: `Client`, and `AsyncClient` for an event loop.

with Client() as flowd:
    results = flowd.run(workflow, timeout_s=60)

`calls` has every call as data, `steps` what a wait for an end consists of; the two clients only do
the waiting. Knows no other room: it could be a package of its own. Called by people's programs, and
by the commands.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from flowd.client.errors import (
    ApiError,
    ClientError,
    ConnectionFailed,
    StillRunning,
    WorkflowFailed,
)
from flowd.client.event_reader import Event
from flowd.client.synchronous import Client

if TYPE_CHECKING:
    from flowd.client.asynchronous import AsyncClient

__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Event",
    "StillRunning",
    "WorkflowFailed",
]


def __getattr__(name: str) -> object:
    """The client for an event loop comes with all that it needs once it is asked for."""
    if name != "AsyncClient":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from flowd.client.asynchronous import AsyncClient

    return AsyncClient
