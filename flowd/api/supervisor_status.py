"""Ask the supervisor above this process, if there is one, how its processes do."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, Final

import orjson

from flowd.socket_path import reachable_path

CONTROL_SOCKET_FILE: Final = "control.sock"
TIMEOUT_S: Final = 1.0


async def processes(control_socket: Path | None) -> list[dict[str, Any]]:
    """What `flowd status` shows of each process; empty where nobody answers."""
    rows: list[dict[str, Any]] = (await daemon(control_socket)).get("processes", [])
    return rows


async def daemon(control_socket: Path | None) -> dict[str, Any]:
    """What `flowd status` is told; empty where nobody answers."""
    if control_socket is None:
        return {}
    try:
        async with asyncio.timeout(TIMEOUT_S):
            reader, writer = await asyncio.open_unix_connection(reachable_path(control_socket))
            try:
                writer.write(b'{"command": "status"}\n')
                answer = orjson.loads(await reader.readline())
            finally:
                writer.close()
        rows = answer["processes"]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return dict(answer) if isinstance(rows, list) else {}
