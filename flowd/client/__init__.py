"""flowd's HTTP API from Python: `Client`, and `AsyncClient` for an event loop.

with Client() as flowd:
    results = flowd.run(workflow, timeout_s=60)
"""

from __future__ import annotations

from flowd.client.asynchronous import AsyncClient
from flowd.client.errors import (
    ApiError,
    ClientError,
    ConnectionFailed,
    StillRunning,
    WorkflowFailed,
)
from flowd.client.event_reader import Event
from flowd.client.synchronous import Client

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
