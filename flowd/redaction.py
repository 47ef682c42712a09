"""Takes the secrets this process has used out of whatever leaves it.

A secret travels in disguise as easily as in plain: escaped in JSON, encoded in a URL, in base64 at
any of three alignments. All of these forms are looked for; a secret that a handler has reversed or
encrypted is not found.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote, quote_plus

MASK: Final = "********"
# Shorter ones would be found in innocent text, and are no secrets anyway.
SECRET_CHARS_MIN: Final = 4


class Redactor:
    """Costs nothing until it has learned the first secret."""

    def __init__(self) -> None:
        self.secrets: list[str] = []
        self._forms: set[str] = set()
        self._text: re.Pattern[str] | None = None
        self._data: re.Pattern[bytes] | None = None

    def learn(self, secret: str) -> None:
        if secret in self.secrets:
            return
        self.secrets.append(secret)
        self._forms |= set(_forms(secret))
        # The longest first: one form may be the beginning of another.
        pattern = "|".join(re.escape(one) for one in sorted(self._forms, key=len, reverse=True))
        self._text = re.compile(pattern)
        self._data = re.compile(pattern.encode())

    def text(self, text: str) -> str:
        return self._text.sub(MASK, text) if self._text else text

    def data(self, data: bytes) -> bytes:
        """UTF-8, such as JSON: a form never begins or ends within an escape."""
        return self._data.sub(MASK.encode(), data) if self._data else data


# Of this process: what one call has used, another may see in an error or a log line.
REDACTOR: Final = Redactor()


def _forms(secret: str) -> Iterator[str]:
    for plain in (secret, *secret.splitlines()):
        if len(plain) >= SECRET_CHARS_MIN:
            yield from _encoded(plain)


def _encoded(plain: str) -> Iterator[str]:
    yield plain
    yield json.dumps(plain)[1:-1]
    yield json.dumps(plain, ensure_ascii=False)[1:-1]
    yield repr(plain)[1:-1]
    for encode in (quote, quote_plus):
        for safe in ("", "/", "~", "-_.!*'()"):
            encoded = encode(plain, safe=safe)
            yield encoded
            yield re.sub(r"%[0-9A-F]{2}", lambda code: code[0].lower(), encoded)
    yield from _in_base64(plain.encode())


def _in_base64(data: bytes) -> Iterator[str]:
    """The characters that are the same whatever stands before and behind the secret."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            encoded = encode(b"\0" * before + data).decode()
            first = -(-before * 8 // 6)
            last = (before + len(data)) * 8 // 6
            if last - first >= SECRET_CHARS_MIN:
                yield encoded[first:last]
