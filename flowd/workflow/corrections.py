"""What a corrected definition changes of nodes that have run before: which of them run again, and
why."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final, NamedTuple

import orjson

from flowd.errors import Problem, TemplateError
from flowd.workflow.conditions import Condition
from flowd.workflow.ids import WORKFLOW
from flowd.workflow.templating import INPUT, find_templates

# What a node has put out depends on these; its attempts, its time-out, and whether it may fail
# change nothing of what is there.
_FIELDS: Final = ("handler", "config", "dependencies", "when", "after", "repeat", "map")
# What `map` says of how its items run together: of one that has gone well, that is past.
_OF_FAILURES: Final = ("concurrency", "max_failed", "fail_fast")
_NAME: Final = ("execution", "name")


class Correction(NamedTuple):
    """By id, why a node runs that would have been left alone: `changed` are those that were there
    before. `lists` are the nodes with `map` that read their list anew. `removed` are gone."""

    changed: Mapping[str, str]
    new: tuple[str, ...]
    lists: frozenset[str]
    removed: tuple[str, ...]


def correct(
    before: bytes, after: bytes, given_input: Mapping[str, Any], failed: frozenset[str]
) -> Correction:
    """Compare two definitions as `to_json` writes them. `given_input` is what the execution was
    started with; `failed` are nodes of which the output is none."""
    old, new = _Reading(before, given_input), _Reading(after, given_input)
    changed: dict[str, str] = {}
    lists: set[str] = set()
    for node_id, node in new.nodes.items():
        was = old.nodes.get(node_id)
        if was is None:
            continue
        fields = _changed_fields(was, node, has_failed=node_id in failed)
        reads = [one for one in new.read_by(node_id) if old.value(one) != new.value(one)]
        if (node_id in old.last) != (node_id in new.last):
            changed[node_id] = "it has moved from one part of dag to the other"
        elif fields:
            changed[node_id] = f"its {' and '.join(fields)} changed"
        elif reads:
            changed[node_id] = f"it reads {'.'.join(filter(None, reads[0]))}, which changed"
        if "map" in fields or (reads and "map" in node):
            lists.add(node_id)
    return Correction(
        changed,
        tuple(one for one in new.nodes if one not in old.nodes),
        frozenset(lists),
        tuple(one for one in old.nodes if one not in new.nodes),
    )


def _changed_fields(was: dict[str, Any], node: dict[str, Any], *, has_failed: bool) -> list[str]:
    if node["handler"] == WORKFLOW and "version" not in node["config"]:
        # It was settled when the execution was made; what has gone well need not know.
        was = {**was, "config": {k: v for k, v in was["config"].items() if k != "version"}}
    return [
        name
        for name in _FIELDS
        if _meaning(name, was.get(name), has_failed) != _meaning(name, node.get(name), has_failed)
    ]


def _meaning(name: str, value: Any, has_failed: bool) -> Any:
    """What of a field makes a difference to an output, in a form that can be compared."""
    if name == "dependencies":
        return sorted(value)
    if name == "after":
        return value or "completed"
    if name == "map" and value is not None and not has_failed:
        return {key: one for key, one in value.items() if key not in _OF_FAILURES}
    # As text: true and 1 are equal, and are not the same.
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


class _Reading:
    """A definition, and what its nodes read besides each other."""

    def __init__(self, definition: bytes, given_input: Mapping[str, Any]) -> None:
        document = orjson.loads(definition)
        dag = document["dag"]
        self.last = {node["id"] for node in dag.get("finally", ())}
        self.nodes = {node["id"]: node for node in (*dag["nodes"], *dag.get("finally", ()))}
        self._name = document["name"]
        self._input = {**(document.get("input") or {}), **given_input}

    def value(self, read: tuple[str, str]) -> bytes:
        """Of `input`, all of it or what stands under a key; as text, see `_meaning`."""
        name, key = read
        found = self._name if read == _NAME else self._input
        if name == INPUT and key:
            found = [self._input[key]] if key in self._input else []
        return orjson.dumps(found, option=orjson.OPT_SORT_KEYS)

    def read_by(self, node_id: str) -> Iterator[tuple[str, str]]:
        for name, step in _references(self.nodes[node_id]):
            # A node of that name is what is read.
            if name == INPUT and name not in self.nodes:
                yield name, step if isinstance(step, str) else ""
            elif (name, step) == _NAME and name not in self.nodes:
                yield _NAME


def _references(node: dict[str, Any]) -> Iterator[tuple[str, str | int | None]]:
    rendered = {"config": node["config"], "over": node.get("map", {}).get("over", "")}
    for found in find_templates(rendered, ""):
        if not isinstance(found, Problem):
            yield found.node_id, found.step
    for text in (node.get("when"), node.get("repeat", {}).get("until")):
        if text is None:
            continue
        try:
            condition = Condition(text)
        except TemplateError:
            continue
        yield from ((read.name, read.step) for read in condition.reads)
