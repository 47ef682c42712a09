"""Wait and do nothing: between two polls of something slow, or to spare a service."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from pydantic import Field

from flowd.handlers.config import NodeConfig
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler


class DelayConfig(NodeConfig):
    seconds: float = Field(ge=0, le=86400, allow_inf_nan=False, description="how long to wait")


@handler("delay")
async def delay(config: DelayConfig, context: HandlerContext) -> dict[str, Any]:
    """Waits for some seconds."""
    # A node's time-out is for what may hang, and a wait does not: its time begins when it is over.
    context.heartbeat_at = time.monotonic() + config.seconds
    await asyncio.sleep(config.seconds)
    return {"status": "ok", "seconds": config.seconds}
