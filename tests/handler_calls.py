"""Run one handler the way a worker would, without a worker."""

from __future__ import annotations

import inspect
from typing import Any

import uvloop

from flowd.config import Settings
from flowd.workers.registry import HandlerContext, Resources, built_in_registry


def run_handler(
    name: str, config: dict[str, Any], *, settings: Settings | None = None, attempt: int = 1
) -> dict[str, Any]:
    return uvloop.run(_run(name, config, settings or Settings(), attempt))


async def _run(name: str, config: dict[str, Any], settings: Settings, attempt: int) -> Any:
    resources = Resources()
    context = HandlerContext("e1", "A", attempt, settings, resources)
    try:
        output = built_in_registry().load(name).function(config, context)
        return await output if inspect.isawaitable(output) else output
    finally:
        await resources.close()
