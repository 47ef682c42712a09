"""Handlers that cannot end before somebody lets them."""

import time
from pathlib import Path
from typing import Any

from flowd.handlers import Context, Retry, handler


@handler("holds")
def holds(config: dict[str, Any], context: Context) -> dict[str, Any]:  # noqa: ARG001
    while not Path("/var/lib/flowd/go").exists():
        time.sleep(0.05)
    return {"attempt": context.attempt}


@handler("retries")
def retries(config: dict[str, Any], context: Context) -> dict[str, Any]:  # noqa: ARG001
    if context.attempt == 1:
        raise Retry("not yet", after_s=15)
    return {"attempt": context.attempt}
