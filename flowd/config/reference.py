"""Write every setting into a settings file, with its meaning and its default."""

from __future__ import annotations

import json
import re
import textwrap
from collections.abc import Iterator
from dataclasses import Field
from pathlib import Path
from typing import Any

from flowd.config.loading import setting_fields

_LINE_CHARS_MAX = 100
_HEAD = """\
# flowd's settings, each with its default. A line that is commented out has none, or one that
# depends on the machine; what it holds is an example.
#
# A value comes from the first of: command-line flag, FLOWD_<SECTION>__<KEY> in the environment or
# in .env beside this file, the short name that is given with a key, this file, the default.
"""


def settings_file() -> str:
    """A flowd.toml with every setting, what it means and its default."""
    lines = [_HEAD]
    section = ""
    for key, field in setting_fields().items():
        place, _, name = key.rpartition(".")
        if place != section:
            lines.append(f"\n[{place}]")
            section = place
        lines += _comment(field)
        lines.append(_assignment(name, field))
    return "\n".join(lines) + "\n"


def _comment(field: Field[Any]) -> Iterator[str]:
    text = re.sub(r"\[([^]]+)\]\([^)]+\)", r"\1", field.metadata["meaning"])
    text = text[:1].upper() + text[1:] + "."
    if variable := field.metadata["variable"]:
        text += f" Also {variable}."
    yield from textwrap.wrap(
        text,
        _LINE_CHARS_MAX,
        initial_indent="# ",
        subsequent_indent="# ",
        break_long_words=False,
        break_on_hyphens=False,
    )


def _assignment(name: str, field: Field[Any]) -> str:
    if field.metadata["example"] is not None:
        return f"# {name} = {written(field.metadata['example'])}"
    return f"{name} = {written(field.default)}"


def written(value: Any) -> str:
    """As TOML has it, which for these types is as JSON has it."""
    if isinstance(value, Path):
        value = str(value)
    return json.dumps(value)
