"""Answers that stand for a call nobody made: how they are worded, and told from real ones."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

# By handler: the one field of such an answer, and what it begins with.
_WORDS: Final[Mapping[str, tuple[str, str]]] = MappingProxyType(
    {
        "call_external_service": ("data", "Simulated call to "),
        "llm": ("answer", "Simulated response for: "),
    }
)
SIMULATING: Final = frozenset(_WORDS)


def simulated(handler: str, asked: str) -> dict[str, Any]:
    field, words = _WORDS[handler]
    return {field: f"{words}{asked}"}


def is_simulated(handler: str, output: object) -> bool:
    field, words = _WORDS[handler]
    if not isinstance(output, dict) or output.keys() != {field}:
        return False
    said = output[field]
    return isinstance(said, str) and said.startswith(words)
