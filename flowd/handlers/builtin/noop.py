"""Do nothing, successfully: a place to join branches, or to try a workflow's shape."""

from __future__ import annotations

from typing import Any

from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler


@handler("noop", inline=True)
def noop(_config: dict[str, Any], _context: HandlerContext) -> dict[str, Any]:
    """Does nothing, whatever its config."""
    return {"status": "ok"}
