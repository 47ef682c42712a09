"""Takes the secrets of this process out of whatever leaves it.

A secret travels in disguise as easily as in plain: escaped in JSON or HTML, encoded in a URL, in
base64 at any of three alignments. All of these forms are looked for; a secret that a handler has
reversed or encrypted is not found.
"""

from __future__ import annotations

import base64
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, AnyStr, Final
from urllib.parse import quote, quote_plus

import orjson

MASK: Final = "********"
# Shorter ones would be found in innocent text, and are no secrets anyway.
SECRET_CHARS_MIN: Final = 4
# Looking for one form in four megabytes takes a millisecond.
BYTES_BY_FORMS_MAX: Final = 8_000_000


class Redactor:
    """Costs nothing until it has learned the first secret."""

    def __init__(self) -> None:
        self._secrets: dict[str, None] = {}
        # The forms of each that is hidden now, and how many use one that is not known for good.
        self._forms: dict[str, list[str]] = {}
        self._users: Counter[str] = Counter()
        self._is_sorted = True
        self._texts: list[str] = []
        # The same in the same order, as they stand in JSON.
        self._data: list[bytes] = []
        self._shortest = sys.maxsize

    @property
    def secrets(self) -> list[str]:
        return list(self._secrets)

    @property
    def longest(self) -> int:
        """How many characters the longest form has that is looked for."""
        return max((len(form) for found in self._forms.values() for form in found), default=0)

    def learn(self, secret: str) -> None:
        self._secrets[secret] = None
        self._hide(secret)

    @contextmanager
    def hiding(self, secret: str) -> Iterator[None]:
        """Hide a secret while this lasts, and forget it then, unless it was learned."""
        self._users[secret] += 1
        self._hide(secret)
        try:
            yield
        finally:
            self._users[secret] -= 1
            if self._users[secret] == 0:
                del self._users[secret]
                if secret not in self._secrets:
                    del self._forms[secret]
                    self._is_sorted = False

    def _hide(self, secret: str) -> None:
        if secret not in self._forms:
            found = self._forms[secret] = list(dict.fromkeys(_forms(secret)))
            self._shortest = min((self._shortest, *map(len, found)))
            self._is_sorted = False

    def _sort(self) -> None:
        """Take up what was learned; secrets are learned by the hundred before the first text."""
        # The longest first: one form may be the beginning of another.
        forms = {form for found in self._forms.values() for form in found}
        self._texts = sorted(forms, key=len, reverse=True)
        self._data = [_escaped(one).encode() for one in self._texts]
        self._shortest = len(self._texts[-1]) if self._texts else sys.maxsize
        self._is_sorted = True

    def text(self, text: str) -> str:
        # One pattern of all forms would be tried at every character: looking for one after the
        # other is a hundred times as fast, and an answer may have megabytes.
        if len(text) < self._shortest:
            return text
        if not self._is_sorted:
            self._sort()
        return _masked(text, [one for one in self._texts if one in text], MASK)

    def data_at_once(self, data: bytes) -> bytes | None:
        """As `data`; None for what takes milliseconds, and is better done where nobody waits."""
        if len(data) < self._shortest:
            return data
        is_slow = len(data) * sum(map(len, self._forms.values())) > BYTES_BY_FORMS_MAX
        return None if is_slow else self.data(data)

    def data(self, data: bytes) -> bytes:
        """JSON, which it stays: a number or an escape that holds a secret becomes a text."""
        if len(data) < self._shortest:
            return data
        if not self._is_sorted:
            self._sort()
        found = [at for at, one in enumerate(self._data) if one in data]
        masked = _masked(data, [self._data[at] for at in found], MASK.encode())
        if masked is data or _is_json(masked):
            return masked
        texts = [self._texts[at] for at in found]
        return orjson.dumps(_rewritten(orjson.loads(data), texts))


def _rewritten(value: Any, texts: list[str]) -> Any:
    if isinstance(value, str):
        return _masked(value, texts, MASK)
    if isinstance(value, dict):
        return {_masked(key, texts, MASK): _rewritten(child, texts) for key, child in value.items()}
    if isinstance(value, list):
        return [_rewritten(child, texts) for child in value]
    written = str(value)
    is_number = not isinstance(value, bool) and value is not None
    return MASK if is_number and _masked(written, texts, MASK) != written else value


# Of this process: what one call has used, another may see in an error or a log line.
REDACTOR: Final = Redactor()


def _masked(text: AnyStr, found: list[AnyStr], mask: AnyStr) -> AnyStr:
    for one in found:
        text = text.replace(one, mask)
    return text


def _is_json(data: bytes) -> bool:
    try:
        orjson.loads(data)
    except orjson.JSONDecodeError:
        return False
    return True


def _forms(secret: str) -> Iterator[str]:
    for plain in (secret, *secret.splitlines()):
        if len(plain) >= SECRET_CHARS_MIN:
            yield from _encoded(plain)


def _encoded(plain: str) -> Iterator[str]:
    # Half a MiB of names of characters, which only who has secrets needs.
    import html

    yield plain
    yield repr(plain)[1:-1]
    yield from _in_json(plain)
    for has_quotes in (False, True):
        yield html.escape(plain, quote=has_quotes)
    for encode in (quote, quote_plus):
        for safe in ("", "/", "~", "-_.!*'()"):
            encoded = encode(plain, safe=safe)
            yield encoded
            yield re.sub(r"%[0-9A-F]{2}", lambda code: code[0].lower(), encoded)
    yield from _in_base64(plain.encode())


def _in_json(plain: str) -> Iterator[str]:
    """Escaped, also where JSON is a text in JSON; some escape the slash too."""
    for once in (_escaped(plain), json.dumps(plain)[1:-1]):
        for escaped in (once, once.replace("/", "\\/")):
            yield escaped
            yield _escaped(escaped)


def _escaped(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _in_base64(data: bytes) -> Iterator[str]:
    """The characters that are the same whatever stands before and behind the secret."""
    for encode in (base64.b64encode, base64.urlsafe_b64encode):
        for before in range(3):
            encoded = encode(b"\0" * before + data).decode()
            first = -(-before * 8 // 6)
            last = (before + len(data)) * 8 // 6
            if last - first >= SECRET_CHARS_MIN:
                yield encoded[first:last]
