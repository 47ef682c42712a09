"""flowd: submit a DAG over HTTP, a daemon on your machine runs it and loses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowd.client import (
        ApiError,
        AsyncClient,
        Client,
        ClientError,
        ConnectionFailed,
        Event,
        StillRunning,
        WorkflowFailed,
    )

__version__ = "0.2.0"
__all__ = [
    "ApiError",
    "AsyncClient",
    "Client",
    "ClientError",
    "ConnectionFailed",
    "Event",
    "StillRunning",
    "WorkflowFailed",
    "__version__",
]


def __getattr__(name: str) -> Any:
    """The clients and what they raise, imported when used."""
    if name in __all__:
        from flowd import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
