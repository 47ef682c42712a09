"""Run one handler the way a worker would, without a worker."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import uvloop

from flowd.config import Settings
from flowd.handlers.context import HandlerContext, Resources
from flowd.handlers.registry import built_in_registry


def settings_with(section: str, **values: Any) -> Settings:
    """These values in `[handlers.section]`, and an entry that allows the services of the tests."""
    allowed = replace(Settings().handlers.call_external_service, allow=("127.0.0.1",))
    handlers = replace(Settings().handlers, call_external_service=allowed)
    changed = replace(getattr(handlers, section), **values)
    return replace(Settings(), handlers=replace(handlers, **{section: changed}))


run_loop = uvloop.run
LOCAL = settings_with("call_external_service")


def run_handler(
    name: str, config: dict[str, Any], *, settings: Settings | None = None, attempt: int = 1
) -> dict[str, Any]:
    return run_loop(_run(name, config, settings or LOCAL, attempt))


async def _run(name: str, config: dict[str, Any], settings: Settings, attempt: int) -> Any:
    resources = Resources()
    context = HandlerContext("e1", "A", attempt, settings, resources)
    try:
        output = built_in_registry().load(name).function(config, context)
        return await output if inspect.isawaitable(output) else output
    finally:
        await resources.close()
