"""The tokens that open the API: a file in the data directory, so that neither Redis nor a running
flowd is needed to make the first one.

Only hashes are kept. A token is 256 random bits: nobody can try them all, so one round of SHA-256
is enough, where a password would need a slow hash.
"""

from __future__ import annotations

import fcntl
import hashlib
import hmac
import json
import os
import re
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from flowd.errors import InvalidSettings, Problem
from flowd.owned_folder import OwnedFolder

TOKENS_FILE: Final = "tokens.json"
# What each scope may do besides its own; in the order in which they include one another.
SCOPES: Final = ("read", "trigger", "admin")
TOKENS_MAX: Final = 1000
_PREFIX = "flowd_"
_LOCK_FILE = "tokens.lock"


@dataclass(frozen=True, slots=True)
class Token:
    """A token as it is kept. `expires_ms` None is never."""

    id: str
    name: str
    scope: str
    sha256: str
    created_ms: int
    expires_ms: int | None

    def allows(self, scope: str) -> bool:
        return SCOPES.index(scope) <= SCOPES.index(self.scope)

    def has_expired(self, now_ms: int) -> bool:
        return self.expires_ms is not None and self.expires_ms <= now_ms


def new_token(name: str, scope: str, *, lifetime_ms: int | None = None) -> tuple[Token, str]:
    """A token to keep, and the text of it that is only known now; `lifetime_ms` None never ends."""
    text = _PREFIX + secrets.token_urlsafe(32)
    now_ms = time.time_ns() // 1_000_000
    expires_ms = None if lifetime_ms is None else now_ms + lifetime_ms
    return Token(secrets.token_hex(4), name, scope, _hash(text), now_ms, expires_ms), text


def find_token(tokens: tuple[Token, ...], text: str, now_ms: int) -> Token | None:
    """The token of this text. Takes as long for any text: all are compared, in constant time."""
    wanted = _hash(text)
    found = None
    for token in tokens:
        if hmac.compare_digest(token.sha256, wanted):
            found = token
    return None if found is None or found.has_expired(now_ms) else found


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode("utf-8", "surrogateescape")).hexdigest()


def read_tokens(data_dir: Path) -> tuple[Token, ...] | None:
    """All tokens there are, None when none was ever made. Raises InvalidSettings."""
    path = data_dir / TOKENS_FILE
    try:
        with OwnedFolder(data_dir) as folder:
            document = json.loads(folder.read(TOKENS_FILE))
        tokens = tuple(Token(**one) for one in document["tokens"])
        if not all(_is_sound(one) for one in tokens):
            raise ValueError("a token is not as flowd writes it")
    except FileNotFoundError:
        return None
    except OSError as error:
        raise _unusable(path, error.strerror or str(error)) from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise _unusable(path, str(error)) from error
    return tokens


def _is_sound(token: Token) -> bool:
    return (
        token.scope in SCOPES
        and re.fullmatch(r"[0-9a-f]{64}", token.sha256) is not None
        and isinstance(token.expires_ms, int | None)
    )


def _unusable(path: Path, reason: str) -> InvalidSettings:
    message = f"the tokens cannot be read: {reason}; mend it, or remove it and make new ones"
    return InvalidSettings([Problem(str(path), "bad_tokens", message)])


def change_tokens(
    data_dir: Path, change: Callable[[tuple[Token, ...]], tuple[Token, ...]]
) -> tuple[Token, ...]:
    """Write what `change` makes of the tokens, one caller after the other.

    Raises InvalidSettings.
    """
    try:
        with OwnedFolder(data_dir, make=True) as folder, _alone(folder):
            tokens = change(read_tokens(data_dir) or ())
            document = json.dumps({"tokens": [asdict(one) for one in tokens]}, indent=2) + "\n"
            folder.replace(TOKENS_FILE, document.encode())
    except OSError as error:
        where = f"{error.filename}: " if error.filename else ""
        message = f"the tokens cannot be written: {where}{error.strerror}"
        raise InvalidSettings([Problem(str(data_dir), "bad_tokens", message)]) from error
    return tokens


@contextmanager
def _alone(folder: OwnedFolder) -> Iterator[None]:
    lock = folder.open_or_create(_LOCK_FILE, os.O_RDWR)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)
