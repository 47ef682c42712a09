"""Wait, and do nothing: between two looks at something slow, or to go easy on a service."""

from __future__ import annotations

import asyncio
import time
from typing import Any, Final

from pydantic import Field

from flowd.handlers.config import NodeConfig
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler


class DelayConfig(NodeConfig):
    seconds: float = Field(ge=0, le=86400, allow_inf_nan=False, description="how long to wait")


# A node's time-out is for what may hang, and a wait does not: it says so this often.
REPORT_EVERY_S: Final = 1.0


@handler("delay")
async def delay(wanted: DelayConfig, context: HandlerContext) -> dict[str, Any]:
    """Waits for some seconds."""
    end_s = time.monotonic() + wanted.seconds
    while (left_s := end_s - time.monotonic()) > 0:
        context.heartbeat()
        await asyncio.sleep(min(left_s, REPORT_EVERY_S))
    return {"status": "ok", "seconds": wanted.seconds}
