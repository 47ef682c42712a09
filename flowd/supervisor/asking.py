"""Ask a supervisor on its control socket: what a command needs of it, and no more."""

from __future__ import annotations

import json
import socket
from pathlib import Path
from typing import Any

from flowd.socket_path import reachable_path

SOCKET_FILE = "control.sock"


class ControlUnavailable(Exception):
    """Nobody answers on the control socket."""


def ask(data_dir: Path, command: str, timeout_s: float = 5.0, **arguments: Any) -> dict[str, Any]:
    """One request to the flowd of this data directory; raises ControlUnavailable."""
    try:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(timeout_s)
            connection.connect(reachable_path(data_dir / SOCKET_FILE))
            connection.sendall(json.dumps({"command": command, **arguments}).encode() + b"\n")
            with connection.makefile("rb") as reader:
                answer = json.loads(reader.readline())
    except (OSError, ValueError, RecursionError) as error:
        raise ControlUnavailable(f"no flowd answers in {data_dir}: {error}") from error
    if not isinstance(answer, dict):
        raise ControlUnavailable(f"what answers in {data_dir} is not flowd")
    return answer
