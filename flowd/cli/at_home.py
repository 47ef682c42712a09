"""Find the flowd that runs in this folder by its control socket alone.

To read the settings costs a command more than all else it does, and most folders need none of them
for this: a flowd keeps its socket in `.flowd` unless somebody names another place.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

from flowd.home import DEFAULT_DATA_DIR, DEFAULT_FILE, find_foreign
from flowd.supervisor.asking import ControlUnavailable, ask

# A supervisor that hangs leaves the address to the settings.
ANSWER_S: Final = 1.0
_VARIABLES: Final = ("FLOWD_CONFIG", "FLOWD_REDIS__DATA_DIR")
# An address in the environment is meant for this very command.
_ADDRESS_PREFIX: Final = "FLOWD_API__"


def ask_at_home(*, has_token: bool) -> str | None:
    """The address of its API, as `http://host:port` or `unix:/path`; None where the settings have
    to be asked.

    `has_token`: what is found is sent a token, and so comes from somebody who may have it.
    """
    if any(name in _VARIABLES or name.startswith(_ADDRESS_PREFIX) for name in os.environ):
        return None
    try:
        if _names_data_dir(Path(DEFAULT_FILE)) or _names_data_dir(Path(".env")):
            return None
        if has_token and find_foreign(Path(DEFAULT_FILE), DEFAULT_DATA_DIR):
            return None
        return str(ask(Path.cwd() / DEFAULT_DATA_DIR, "status", timeout_s=ANSWER_S)["api"])
    except (ControlUnavailable, KeyError, OSError, UnicodeError):
        return None


def _names_data_dir(file: Path) -> bool:
    """Whether anything in it looks like it: then the settings tell."""
    return file.is_file() and "data_dir" in file.read_text(encoding="utf-8").lower()
