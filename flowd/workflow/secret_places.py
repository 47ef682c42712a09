"""Where a config holds secrets: objects of the one key `$secret`, whose value names one.

What stands there is never the secret itself; whoever calls the handler looks it up.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from flowd.errors import Problem

SECRET_KEY = "$secret"
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,127}")

# The steps to a secret in a config, and its name.
SecretPlace = tuple[tuple[str | int, ...], str]


def find_secrets(config: dict[str, Any]) -> Iterator[SecretPlace]:
    """Where a config holds `{"$secret": "NAME"}`."""
    pending: list[tuple[tuple[str | int, ...], Any]] = [((), config)]
    while pending:
        steps, value = pending.pop()
        if isinstance(value, dict):
            if steps and value.keys() == {SECRET_KEY} and isinstance(value[SECRET_KEY], str):
                yield steps, value[SECRET_KEY]
            else:
                pending += [((*steps, key), child) for key, child in value.items()]
        elif isinstance(value, list):
            pending += [((*steps, index), child) for index, child in enumerate(value)]


def find_secret_problems(config: Any, path: str) -> Iterator[Problem]:
    """What is wrong with the `$secret` objects of a config, at submit."""
    pending: list[tuple[str, Any]] = [(path, config)]
    while pending:
        place, value = pending.pop()
        if isinstance(value, dict):
            if SECRET_KEY in value:
                yield from _flaws(value, place)
            pending += [(f"{place}.{key}", child) for key, child in value.items()]
        elif isinstance(value, list):
            pending += [(f"{place}[{index}]", child) for index, child in enumerate(value)]


def _flaws(value: dict[str, Any], path: str) -> Iterator[Problem]:
    name = value[SECRET_KEY]
    if len(value) > 1:
        message = f'a secret is an object of one key: {{"{SECRET_KEY}": "NAME"}}'
        yield Problem(path, "bad_secret", message)
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        message = "expected the name of a secret: letters, digits and '_', the first no digit"
        yield Problem(f"{path}.{SECRET_KEY}", "bad_secret", message)
