"""What a reload may change, and what only a restart can."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from flowd.config import Settings

# Everybody has to agree on these, and the children change one after the other; what the address and
# the data directory name was taken at the start.
_FIXED_KEYS = ("api.host", "api.port", "api.socket")
_FIXED_SECTIONS = ("redis", "tasks")


def keep_fixed(new: Settings, running: Settings) -> tuple[Settings, list[str]]:
    """The new settings with the fixed ones as they are; the names of those that would change."""
    names = list(_FIXED_KEYS)
    for section in _FIXED_SECTIONS:
        keys = fields(getattr(new, section))
        names += [f"{section}.{one.name}" for one in keys if one.metadata]
    kept = [name for name in names if _value(new, name) != _value(running, name)]
    api = {name.partition(".")[2]: _value(running, name) for name in _FIXED_KEYS}
    sections = {name: getattr(running, name) for name in _FIXED_SECTIONS}
    return replace(new, api=replace(new.api, **api), **sections), kept


def _value(settings: Settings, name: str) -> Any:
    section, _, key = name.partition(".")
    return getattr(getattr(settings, section), key)
