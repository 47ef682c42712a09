"""Who may use the embedded server: its two users, and when the port asks for a password.

Redis knows users and not ways in: without a login one is `default`, at the port and at the socket
alike. So flowd itself logs in as a user of its own, and `default` is as free as the API is: nobody
needs a password until the API asks for tokens, and then everybody does.
"""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from flowd.config import EMBEDDED_USER
from flowd.errors import InvalidSettings, Problem
from flowd.owned_folder import OwnedFolder
from flowd.tokens import TOKENS_FILE

PASSWORD_FILE: Final = "redis.password"

_PASSWORD_CHARS_MIN: Final = 16
# Everything that reads and changes data, and what a flowd that joins by the port needs besides. No
# client of flowd changes the server itself, empties it, copies it elsewhere, listens to what others
# send, or leaves functions in it.
_DEFAULT_RIGHTS: Final = (
    "~* &* +@all -@admin -@dangerous -@scripting +info +keys +eval +eval_ro +evalsha +evalsha_ro "
    "+script|load +script|exists"
)


class Access:
    """The users of one data directory's server. `is_closed` asks for the password in any case."""

    def __init__(self, data_dir: Path, *, is_closed: bool) -> None:
        self._data_dir = data_dir
        self._is_closed = is_closed
        self.password = keep_password(data_dir)

    @property
    def login(self) -> tuple[str, str]:
        return EMBEDDED_USER, self.password

    def asks_password(self) -> bool:
        """Whether the port asks for it now: as long as the API asks for tokens."""
        # Looked at as the API does: a file nobody can read opens nothing.
        return self._is_closed or os.path.lexists(self._data_dir / TOKENS_FILE)

    def configuration(self) -> list[str]:
        """The lines of redis.conf; nobody learns the password from them."""
        hashed = f"#{hashlib.sha256(self.password.encode()).hexdigest()}"
        login = hashed if self.asks_password() else "nopass"
        return [
            f"user default on {login} {_DEFAULT_RIGHTS}",
            f"user {EMBEDDED_USER} on {hashed} ~* &* +@all",
        ]

    def commands(self, *, asks_password: bool) -> list[Sequence[str]]:
        """What makes it so in a server that runs: a login in time opens nothing for ever."""
        if not asks_password:
            return [("ACL", "SETUSER", "default", "nopass")]
        return [
            # Takes away what let everybody in as well (Redis reference, ACL SETUSER).
            ("ACL", "SETUSER", "default", "resetpass", f">{self.password}"),
            ("CLIENT", "KILL", "USER", "default"),
        ]


def keep_password(data_dir: Path) -> str:
    """The password of this data directory, made when there is none. Raises OSError."""
    with OwnedFolder(data_dir, make=True) as folder:
        try:
            password = _read(folder)
        except FileNotFoundError:
            password = ""
        # An emptied file would let everybody in.
        if len(password) < _PASSWORD_CHARS_MIN:
            password = secrets.token_urlsafe(32)
            folder.replace(PASSWORD_FILE, f"{password}\n".encode())
        return password


def read_password(data_dir: Path) -> str | None:
    """None where there is none yet. Raises InvalidSettings."""
    try:
        with OwnedFolder(data_dir) as folder:
            return _read(folder)
    except FileNotFoundError:
        return None
    except OSError as error:
        message = f"the password of the embedded server cannot be read: {error.strerror}"
        path = str(data_dir / PASSWORD_FILE)
        raise InvalidSettings([Problem(path, "unreadable_file", message)]) from error


def _read(folder: OwnedFolder) -> str:
    return folder.read(PASSWORD_FILE).decode("ascii", "replace").strip()
