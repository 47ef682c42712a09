"""The workflows that are run: all of `noop` nodes, so that what is measured is the engine."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import orjson

from flowd.workflow.definition import MAP_CONCURRENCY_MAX, WorkflowDefinition
from flowd.workflow.graph import Plan, compile_plan
from flowd.workflow.ids import WORKFLOW


class Shape(NamedTuple):
    """A workflow ready to be submitted."""

    workflow: WorkflowDefinition
    node_ids: tuple[str, ...]
    definition: bytes
    plan: Plan
    # Of a map, which is its only node.
    items: int = 0
    # The nodes that do not run.
    skipped: frozenset[str] = frozenset()

    @property
    def name(self) -> str:
        return self.workflow.name

    @property
    def size(self) -> int:
        return self.items or len(self.node_ids)

    @property
    def last(self) -> str:
        """The node that ends last: each shape has one that all others lead to."""
        return self.node_ids[-1]


def single(handler: str = "noop") -> Shape:
    return _shape("single", [("A", ())], handler)


def delay(seconds: float) -> Shape:
    """One node that waits."""
    return _shape("delay", [("A", ())], "delay", {"seconds": seconds})


def chain(length: int, **fields: Any) -> Shape:
    """`fields` are those of each node."""
    nodes = [(f"n{at}", (f"n{at - 1}",) if at else ()) for at in range(length)]
    return _with_fields(_shape(f"chain of {length}", nodes), fields)


def fan(width: int) -> Shape:
    middle = [f"b{at}" for at in range(width)]
    nodes = [("a", ()), *((one, ("a",)) for one in middle), ("z", tuple(middle))]
    return _shape(f"fan of {width}", nodes)


def beside(width: int, handler: str, **fields: Any) -> Shape:
    """Nodes that depend on nothing; `fields` are those of each."""
    nodes = [(f"n{at}", ()) for at in range(width)]
    return _with_fields(_shape(f"{width} of {handler}", nodes, handler), fields)


def diamond(**fields: Any) -> Shape:
    """`fields` are those of each node."""
    nodes = [("A", ()), ("B", ("A",)), ("C", ("A",)), ("D", ("B", "C"))]
    return _with_fields(_shape("diamond", nodes), fields)


def _with_fields(shape: Shape, fields: Mapping[str, Any]) -> Shape:
    if not fields:
        return shape
    body = orjson.loads(shape.definition)
    for node in body["dag"]["nodes"]:
        node.update(fields)
    return _compiled(body)


def half_diamond() -> Shape:
    """A diamond one arm of which does not run."""
    plain = diamond().workflow.model_dump(exclude_none=True, by_alias=True)
    plain["dag"]["nodes"][1]["when"] = "false"
    return _compiled({**plain, "name": "half diamond"}, frozenset({"B"}))


def gated() -> Shape:
    """A node that waits for a signal, and one behind it."""
    return _shape("gated", [("A", ()), ("B", ("A",))], A="signal")


def calling(name: str, width: int) -> Shape:
    """Nodes beside each other, each of which runs the first version of a saved workflow."""
    nodes = [(f"c{at}", ()) for at in range(width)]
    return _shape(f"{width} children", nodes, WORKFLOW, {"name": name, "version": 1})


def mapped(items: int) -> Shape:
    """One node with a map of so many items, as many of them under way as may be."""
    said = {"over": "{{ input.rows }}", "concurrency": MAP_CONCURRENCY_MAX}
    node = {"id": "m", "handler": "noop", "config": {}, "map": said}
    body: dict[str, Any] = {"name": f"map of {items}", "dag": {"nodes": [node]}}
    body["input"] = {"rows": list(range(items))}
    workflow = WorkflowDefinition.model_validate(body)
    definition = workflow.to_json()
    return Shape(workflow, ("m",), definition, compile_plan(definition), items)


def _shape(
    name: str,
    nodes: list[tuple[str, tuple[str, ...]]],
    handler: str = "noop",
    config: Mapping[str, Any] = MappingProxyType({}),
    **handlers: str,
) -> Shape:
    """`handlers` are those of single nodes, by id."""
    written = [
        {
            "id": node_id,
            "handler": handlers.get(node_id, handler),
            "dependencies": list(dependencies),
            "config": dict(config),
        }
        for node_id, dependencies in nodes
    ]
    return _compiled({"name": name, "dag": {"nodes": written}})


def _compiled(body: dict[str, Any], skipped: frozenset[str] = frozenset()) -> Shape:
    workflow = WorkflowDefinition.model_validate(body)
    definition = workflow.to_json()
    node_ids = tuple(node.id for node in workflow.dag.nodes)
    return Shape(workflow, node_ids, definition, compile_plan(definition), skipped=skipped)
