"""A handler that says where it runs, and whose first attempt ends with its worker."""

from __future__ import annotations

import asyncio
import os
import time
from pathlib import Path
from typing import Any

import orjson

from flowd.handlers import Context, handler


@handler("hold")
async def hold(_config: dict[str, Any], context: Context) -> dict[str, Any]:
    started = {"attempt": context.attempt, "pid": os.getpid(), "at": time.monotonic()}
    path = Path(f"{context.execution_id}-{context.attempt}")
    path.with_suffix(".new").write_bytes(orjson.dumps(started))
    path.with_suffix(".new").rename(path)
    while context.attempt == 1:  # noqa: ASYNC110 - until it is killed
        await asyncio.sleep(1)
    return {}
