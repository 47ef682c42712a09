"""The tables of the manual that say what the code says, each the only one with its head."""

from __future__ import annotations

import ast
import re
import tomllib
from collections.abc import Callable, Mapping
from dataclasses import Field
from pathlib import Path
from typing import Any

from flowd.config import DEFAULT_WORKER_NAME
from flowd.config.loading import setting_fields
from flowd.config.reference import written
from flowd.log import EVENTS

ROOT = Path(__file__).parents[2]


def settings_table() -> str:
    """A Markdown table: setting, default, flag and variable, meaning."""
    rows = ["| setting | default | flag, variable | meaning |", "|---|---|---|---|"]
    for key, field in setting_fields().items():
        facts = field.metadata
        names = ", ".join(f"`{facts[one]}`" for one in ("flag", "variable") if facts[one])
        rows.append(f"| `{key}` | {_default(field)} | {names} | {facts['meaning']} |")
    return "\n".join(rows) + "\n"


def events_table() -> str:
    """event, meaning"""
    rows = [f"| `{event}` | {meaning} |" for event, meaning in EVENTS.items()]
    return "\n".join(["| event | meaning |", "|---|---|", *rows]) + "\n"


def rooms_table() -> str:
    """room, what it is for: from top to bottom, in the words of its `__init__.py`."""
    rows = [f"| `{room}` | {purpose_of(room)} |" for room in rooms()]
    return "\n".join(["| room | what it is for |", "|---|---|", *rows]) + "\n"


def rooms() -> list[str]:
    """The packages in the order of the layers, a room within a room behind it."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (layers,) = (
        contract["layers"]
        for contract in project["tool"]["importlinter"]["contracts"]
        if contract["type"] == "layers"
    )
    found = []
    for module in re.split(r" \| |\n", "\n".join(layers)):
        path = ROOT / module.replace(".", "/")
        found += sorted(str(one.parent.relative_to(ROOT)) for one in path.rglob("__init__.py"))
    return found


def purpose_of(room: str) -> str:
    """The first line of the room's own description."""
    text = ast.get_docstring(ast.parse((ROOT / room / "__init__.py").read_text())) or ""
    return text.partition("\n")[0]


def _default(field: Field[Any]) -> str:
    if field.default is None:
        return ""
    if field.default == DEFAULT_WORKER_NAME:
        return "`worker-<hostname>`"
    if isinstance(field.default, tuple):
        return f"`{written(field.default)}`"
    return f"`{str(field.default).lower() if isinstance(field.default, bool) else field.default}`"


TABLES: Mapping[str, Callable[[], str]] = {
    "settings": settings_table,
    "log-events": events_table,
    "architecture": rooms_table,
}
