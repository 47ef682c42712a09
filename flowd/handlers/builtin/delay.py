"""Wait and do nothing: until a service is ready, or until a moment. It takes no slot meanwhile."""

from __future__ import annotations

import time
from datetime import datetime
from typing import Any

from pydantic import Field, field_validator, model_validator

from flowd.errors import WAIT_S_MAX, WaitFor
from flowd.handlers.config import NodeConfig
from flowd.handlers.context import HandlerContext
from flowd.handlers.registry import handler


class DelayConfig(NodeConfig):
    seconds: float | None = Field(
        None, ge=0, le=WAIT_S_MAX, allow_inf_nan=False, description="how long to wait"
    )
    until: str | None = Field(
        None, description="until when to wait, in ISO 8601 with a zone: 2026-12-24T18:00:00+01:00"
    )

    @field_validator("until")
    @classmethod
    def _is_a_moment(cls, until: str | None) -> str | None:
        if until is not None:
            _moment_s(until)
        return until

    @model_validator(mode="after")
    def _says_how_long(self) -> DelayConfig:
        if (self.seconds is None) == (self.until is None):
            raise ValueError("say either `seconds` or `until`")
        return self


def _moment_s(text: str) -> float:
    """Unix seconds. Raises ValueError."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(
            f"{text[:40]!r} is no moment; write it in ISO 8601: 2026-12-24T18:00:00+01:00"
        ) from None
    if moment.tzinfo is None:
        raise ValueError(f"{text[:40]!r} has no zone; add Z for UTC, or an offset such as +01:00")
    seconds = moment.timestamp()
    if seconds > time.time() + WAIT_S_MAX:
        raise ValueError(f"{text[:40]!r} is more than ten years from now")
    return seconds


@handler("delay", inline=True)
def delay(config: DelayConfig, context: HandlerContext) -> dict[str, Any]:
    """Waits for some seconds, or until a moment, and takes no slot meanwhile."""
    if context.decision is None:
        if config.seconds:
            raise WaitFor("date", round(1000 * config.seconds))
        if config.until is not None and _moment_s(config.until) > time.time():
            raise WaitFor("moment", round(1000 * _moment_s(config.until)))
    return {"status": "ok", **config.model_dump(exclude_none=True)}
