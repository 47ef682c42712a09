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


def new_token(name: str, scope: str, *, expires_ms: int | None = None) -> tuple[Token, str]:
    """A token to keep, and the text of it that is only known now."""
    text = _PREFIX + secrets.token_urlsafe(32)
    now_ms = time.time_ns() // 1_000_000
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
        document = json.loads(path.read_bytes())
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
        data_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _alone(data_dir):
            tokens = change(read_tokens(data_dir) or ())
            _write(data_dir, tokens)
    except OSError as error:
        message = f"the tokens cannot be written: {error.strerror}"
        raise InvalidSettings([Problem(str(data_dir), "bad_tokens", message)]) from error
    return tokens


@contextmanager
def _alone(data_dir: Path) -> Iterator[None]:
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
    lock = os.open(data_dir / _LOCK_FILE, flags, 0o600)
    try:
        _give_to_owner(lock, data_dir)
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
    finally:
        os.close(lock)


def _write(data_dir: Path, tokens: tuple[Token, ...]) -> None:
    path = data_dir / TOKENS_FILE
    new = path.with_suffix(f".{os.getpid()}.new")
    document = json.dumps({"tokens": [asdict(one) for one in tokens]}, indent=2) + "\n"
    try:
        descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            _give_to_owner(descriptor, data_dir)
            file.write(document)
            file.flush()
            os.fsync(descriptor)
        new.replace(path)
    finally:
        new.unlink(missing_ok=True)
    folder = os.open(data_dir, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def _give_to_owner(descriptor: int, data_dir: Path) -> None:
    """Root may make a token for the service: its user must be able to read it."""
    if os.geteuid() == 0:
        owner = data_dir.stat()
        os.fchown(descriptor, owner.st_uid, owner.st_gid)
