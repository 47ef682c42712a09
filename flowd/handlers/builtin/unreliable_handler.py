"""Fail on purpose, by a rate or in the first attempts, to test how a workflow copes."""

from __future__ import annotations

import random
from typing import Any

from pydantic import Field

from flowd.errors import HandlerFailed
from flowd.handlers.config import NodeConfig
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler


class UnreliableHandlerConfig(NodeConfig):
    """With neither key set the node never fails."""

    failure_rate: float = Field(default=0.0, ge=0.0, le=1.0, allow_inf_nan=False)
    fail_first_attempts: int = Field(default=0, ge=0)


@handler("unreliable_handler", inline=True)
def unreliable_handler(config: UnreliableHandlerConfig, context: HandlerContext) -> dict[str, Any]:
    """Fails on purpose, as often as its config says."""
    if context.attempt <= config.fail_first_attempts:
        raise HandlerFailed(
            f"attempt {context.attempt} failed on purpose: "
            f"config.fail_first_attempts is {config.fail_first_attempts}"
        )
    if random.random() < config.failure_rate:
        raise HandlerFailed(
            f"attempt {context.attempt} failed on purpose: "
            f"config.failure_rate is {config.failure_rate:g}"
        )
    return {"status": "ok", "attempt": context.attempt}
