"""Which keys of its input a workflow knows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

from flowd.errors import Problem, TemplateError
from flowd.workflow.conditions import Condition
from flowd.workflow.templating import INPUT, find_templates

# Keys of a schema that say of no key, or not here, what it is called.
_OPEN_KEYS: Final = {
    "additionalProperties",
    "patternProperties",
    "propertyNames",
    "$ref",
    "allOf",
    "anyOf",
    "oneOf",
    "if",
    "unevaluatedProperties",
}


def known_inputs(document: Mapping[str, Any]) -> set[str] | None:
    """Of a valid definition: those that it has a default for, that its schema has, or that its
    templates and conditions read; None where that may be any."""
    schema = document.get("input_schema") or {}
    if any(schema.get(one, False) is not False for one in _OPEN_KEYS):
        return None
    known = {*(document.get("input") or {}), *schema.get("properties", {})}
    for name, step in _reads(document):
        if name == INPUT and not isinstance(step, str):
            return None
        if name == INPUT:
            known.add(str(step))
    return known


def _reads(document: Mapping[str, Any]) -> Iterator[tuple[str, str | int | None]]:
    for found in find_templates(dict(document), ""):
        if not isinstance(found, Problem):
            yield found.node_id, found.step
    dag = document["dag"]
    for node in (*dag["nodes"], *(dag.get("finally") or ())):
        for text in (node.get("when"), (node.get("repeat") or {}).get("until")):
            yield from _reads_of(text) if text else ()


def _reads_of(condition: str) -> Iterator[tuple[str, str | int | None]]:
    try:
        reads = Condition(condition).reads
    except TemplateError:
        return
    yield from ((read.name, read.step) for read in reads)
