"""Read the nodes of a document, whole or not, into what the checks of a workflow look at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeVar

from flowd.errors import WAIT_S_MAX
from flowd.workflow.definition import (
    CacheDefinition,
    LimitDefinition,
    NodeDefinition,
    WorkflowDefinition,
)
from flowd.workflow.references import ReadingNode
from flowd.workflow.refusals import names_of
from flowd.workflow.suggestions import Suggestions

_KEYED: Final = ("limit", "cache")
_Item = TypeVar("_Item")


def nodes_of(workflow: WorkflowDefinition) -> list[ReadingNode]:
    return [
        ReadingNode(
            f"dag.{part}[{index}]",
            node.id,
            node.handler,
            node.dependencies,
            node.config,
            node.when,
            node.after,
            node.allow_failure,
            node.repeat.until if node.repeat else None,
            node.map.over if node.map else None,
            node.timeout_s,
            node.retry is not None,
            part == "finally",
            keys=_keys_of(vars(node)) if node.limit or node.cache else {},
        )
        for part, nodes in (("nodes", workflow.dag.nodes), ("finally", workflow.dag.finally_))
        for index, node in enumerate(nodes)
    ]


def read_nodes(document: Any) -> list[ReadingNode]:
    """The nodes of a document that is wrong somewhere, with what is usable of each.

    A misspelt field counts as the one that was meant: it is reported as unknown, and nothing that
    follows from it is.
    """
    suggestions = Suggestions(names_of(NodeDefinition))
    return [
        _read_node(f"dag.{part}[{index}]", value, suggestions)
        for part in ("nodes", "finally")
        for index, value in enumerate(written_nodes(document, part))
        if isinstance(value, dict)
    ]


def _read_node(path: str, written: dict[str, Any], suggestions: Suggestions) -> ReadingNode:
    unknown = [name for name in written if name not in NodeDefinition.model_fields]
    fields = {suggestions.nearest(name): written[name] for name in unknown} | written
    # Whoever has a field too many and no dependencies may have them under another name.
    dependencies = fields.get("dependencies", [None] if unknown else [])
    node_id, handler, map_ = fields.get("id"), fields.get("handler"), fields.get("map")
    return ReadingNode(
        path,
        _typed(node_id, str, None),
        _typed(handler, str, None),
        _typed(dependencies, list, [None]),
        _typed(fields.get("config"), dict, {}),
        _typed(fields.get("when"), str, None),
        _typed(fields.get("after"), str, None),
        fields.get("allow_failure") is True,
        _typed(_typed(fields.get("repeat"), dict, {}).get("until"), str, None),
        None if map_ is None else _typed(_typed(map_, dict, {}).get("over"), str, ""),
        _number(fields.get("timeout_s")),
        fields.get("retry") is not None,
        path.startswith("dag.finally"),
        str(node_id) if isinstance(node_id, int | float) else None,
        keys=_keys_of(fields),
    )


def written_nodes(document: Any, part: str) -> list[Any]:
    dag = _typed(document, dict, {}).get("dag")
    nodes: list[Any] = _typed(_typed(dag, dict, {}).get(part), list, [])
    return nodes


def _keys_of(fields: Mapping[Any, Any]) -> dict[str, str]:
    """The templates of the keys of what has one; empty where that could not be read."""
    return {name: _key_of(fields[name]) for name in _KEYED if fields.get(name) is not None}


def _key_of(part: Any) -> str:
    if isinstance(part, LimitDefinition | CacheDefinition):
        return part.key or ""
    key: str = _typed(_typed(part, dict, {}).get("key"), str, "")
    return key


def _typed(value: Any, wanted: type[_Item], otherwise: Any) -> Any:
    return value if isinstance(value, wanted) else otherwise


def _number(value: Any) -> float | None:
    """None also for one so large that it is refused by itself."""
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return value if is_number and value <= WAIT_S_MAX else None
