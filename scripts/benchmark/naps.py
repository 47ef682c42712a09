"""The handler of the nodes that hold places: it sleeps, and says when it began and ended."""

from __future__ import annotations

import asyncio
import time
from typing import Any

from flowd.handlers import Context, handler

NAP_S = 0.01


@handler("nap")
async def nap(_config: dict[str, Any], _context: Context) -> dict[str, Any]:
    begin = time.perf_counter()
    await asyncio.sleep(NAP_S)
    return {"begin": begin, "end": time.perf_counter()}
