"""Times and durations as people write and read them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import click

from flowd.cli.progress import ENDED

_AGO: Final = re.compile(r"(\d{1,9}(?:\.\d+)?)\s*(s|m|h|d|w)")
_UNITS_S: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400, "w": 604800}


def read_moment(_ctx: click.Context, _option: click.Parameter, text: str | None) -> str | None:
    """`5m` ago, or a time, as the API takes it; one without a zone is of this machine's."""
    if text is None or (text.isdecimal() and len(text) > 8):
        # Milliseconds since 1970 are understood as they are.
        return text
    try:
        if ago := _AGO.fullmatch(text.strip()):
            moment = datetime.now(UTC) - timedelta(seconds=float(ago[1]) * _UNITS_S[ago[2]])
        else:
            moment = datetime.fromisoformat(text.strip()).astimezone(UTC)
    except (ValueError, OverflowError):
        raise click.BadParameter(
            f"{text!r} is no time; write 30s, 5m, 2h or 7d for so long ago, or a time such as "
            "2026-01-31T09:00"
        ) from None
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def clock(ms: int | None) -> str:
    """A time of this machine's time zone, with its offset."""
    if ms is None:
        return "-"
    return datetime.fromtimestamp(ms / 1000).astimezone().isoformat(" ", "seconds")


def span(ms: float | None) -> str:
    """`12ms`, `3.4s`, `2m05s`, `3h07m`, `2d03h`."""
    if ms is None:
        return "-"
    if ms < 1000:
        return f"{ms:.0f}ms"
    if ms < 60_000:
        return f"{ms / 1000:.1f}s"
    minutes, left_s = divmod(int(ms / 1000), 60)
    if minutes < 60:
        return f"{minutes}m{left_s:02d}s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours < 24 else f"{hours // 24}d{hours % 24:02d}h"


def took(duration_ms: int | None, started_ms: int | None, *, is_over: bool) -> str:
    """How long it took; of what is not over, how long it has taken until now."""
    if duration_ms is None and started_ms is not None and not is_over:
        duration_ms = max(0, time.time_ns() // 1_000_000 - started_ms)
    return span(duration_ms)


def node_took(node: Mapping[str, Any]) -> str:
    """From its first start to its end, or until now."""
    # A flowd of an earlier version does not say when it began.
    began_ms = node.get("began_ms", node.get("started_ms"))
    return took(node["duration_ms"], began_ms, is_over=node["state"] in (*ENDED, "SKIPPED"))
