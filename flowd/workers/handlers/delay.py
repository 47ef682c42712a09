"""Wait, and do nothing: between two looks at something slow, or to go easy on a service."""

from __future__ import annotations

import asyncio
from typing import Any

from pydantic import Field

from flowd.workers.node_config import NodeConfig
from flowd.workers.registry import HandlerContext, handler


class DelayConfig(NodeConfig):
    seconds: float = Field(ge=0, le=86400, allow_inf_nan=False, description="how long to wait")


@handler("delay")
async def delay(wanted: DelayConfig, _context: HandlerContext) -> dict[str, Any]:
    """Waits for some seconds."""
    await asyncio.sleep(wanted.seconds)
    return {"status": "ok", "seconds": wanted.seconds}
