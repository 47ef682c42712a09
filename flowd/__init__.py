"""flowd: submit a DAG over HTTP, a daemon on your machine runs it and loses nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowd.client import AsyncClient, Client

__version__ = "0.1.0"
__all__ = ["AsyncClient", "Client", "__version__"]


def __getattr__(name: str) -> Any:
    """The clients, imported when they are used: they bring an HTTP library along."""
    if name in ("AsyncClient", "Client"):
        from flowd import client

        return getattr(client, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
