"""Limits of handlers that several modules share."""

from __future__ import annotations

from typing import Final

IMPORT_LIMIT_S: Final = 120.0
SHELL_IS_OFF: Final = (
    "the handler 'shell' is off; set enabled = true under [handlers.shell] in flowd.toml to let "
    "workflows run programs on this machine"
)
