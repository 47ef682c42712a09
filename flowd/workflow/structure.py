"""Say why the models refused the shape of a document: the pieces one by one, in their order."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from flowd.errors import Problem
from flowd.workflow.definition import (
    LABELS_MAX,
    BudgetDefinition,
    CacheDefinition,
    CallbackDefinition,
    ConcurrencyDefinition,
    DagDefinition,
    LimitDefinition,
    MapDefinition,
    NodeDefinition,
    RepeatDefinition,
    RetryDefinition,
    WorkflowDefinition,
)
from flowd.workflow.ids import LABEL_VALUE_RULE, NAME_RULE, is_label_value, is_name
from flowd.workflow.refusals import message_of, names_of, template_hint
from flowd.workflow.report import Report, quote
from flowd.workflow.strict_json import join_path
from flowd.workflow.suggestions import Suggestions
from flowd.workflow.templating import describe_type

_SOME_NODE = {"id": "A", "handler": "noop"}
_PATTERNS: Mapping[str, str] = {
    "id": "1 to 128 letters, digits, '_' and '-', the first of them not '-'",
    "url": "a URL that begins with http:// or https:// and a host",
    "queue": NAME_RULE,
    "on": "error, timeout, connection, status, a status such as 503 or a class such as 5xx",
}
_OF_DAG = frozenset(names_of(DagDefinition))
_STAND_INS: Mapping[str, Any] = {
    "dag": {"nodes": [_SOME_NODE]},
    "nodes": [_SOME_NODE],
    "finally": [_SOME_NODE],
    "dependencies": ["A"],
    "labels": {"name": "value"},
}


def explain_structure(report: Report, document: Any) -> None:
    """Everything the models find wrong with the shape of a document they refused."""
    if not _explain_object(report, WorkflowDefinition, document, ""):
        return
    _explain_part(report, BudgetDefinition, document, "budget", "")
    _explain_part(report, CallbackDefinition, document, "callback", "")
    _explain_part(report, ConcurrencyDefinition, document, "concurrency", "")
    _explain_labels(report, document.get("labels"))
    dag = document.get("dag")
    if not isinstance(dag, dict):
        return
    _explain_object(report, DagDefinition, dag, "dag")
    for part in ("nodes", "finally"):
        nodes = dag.get(part)
        _explain_nodes(report, nodes if isinstance(nodes, list) else (), f"dag.{part}")


def _explain_labels(report: Report, labels: Any) -> None:
    if not isinstance(labels, dict):
        return
    for problem in label_problems(labels, "labels"):
        report.extend([problem])


def label_problems(labels: dict[str, Any], path: str) -> Iterator[Problem]:
    """Everything that is wrong with labels, an object in any case."""
    if len(labels) > LABELS_MAX:
        message = f"{len(labels):,} labels are more than the limit of {LABELS_MAX}"
        yield Problem(path, "too_many_labels", message)
        return
    for name, value in labels.items():
        place = join_path(path, name)
        if not is_name(name):
            yield Problem(place, "bad_label", f"bad name {quote(name)}; use {NAME_RULE}")
        if not isinstance(value, str):
            message = f"expected a string, not {describe_type(value)}"
            yield Problem(place, "wrong_type", message)
        elif not is_label_value(value):
            message = f"bad value {quote(value)}; use {LABEL_VALUE_RULE}"
            yield Problem(place, "bad_label", message)


def _explain_nodes(report: Report, nodes: Sequence[Any], part: str) -> None:
    for index, node in enumerate(nodes):
        path = f"{part}[{index}]"
        if _explain_object(report, NodeDefinition, node, path):
            _explain_dependencies(report, node.get("dependencies"), path)
            _explain_part(report, RetryDefinition, node, "retry", path)
            _explain_part(report, RepeatDefinition, node, "repeat", path)
            _explain_part(report, MapDefinition, node, "map", path)
            _explain_part(report, CacheDefinition, node, "cache", path)
            _explain_limit(report, node, path)


def _explain_limit(report: Report, node: dict[str, Any], path: str) -> None:
    """A name, or an object."""
    limit = node.get("limit")
    name = limit.get("name") if isinstance(limit, dict) else limit
    place = f"{path}.limit.name" if isinstance(limit, dict) else f"{path}.limit"
    if isinstance(name, str) and not is_name(name):
        report.add(place, "invalid_value", f"bad name {quote(name)}; use {NAME_RULE}")
        return
    if isinstance(limit, dict):
        _explain_part(report, LimitDefinition, node, "limit", path)
    elif limit is not None and not isinstance(limit, str):
        message = f"expected a string or an object, not {describe_type(limit)}"
        report.add(place, "wrong_type", message)


def _explain_dependencies(report: Report, dependencies: Any, path: str) -> None:
    for position, value in enumerate(dependencies if isinstance(dependencies, list) else ()):
        if not isinstance(value, str):
            message = f"expected a node id, not {describe_type(value)}"
            report.add(f"{path}.dependencies[{position}]", "wrong_type", message)


def _explain_part(
    report: Report, model: type[BaseModel], document: dict[str, Any], name: str, path: str
) -> None:
    """As `_explain_object`, of an object whose fields are simple: each is explained as a whole."""
    value = document.get(name)
    if not isinstance(value, dict):
        return
    path = join_path(path, name)
    if not _explain_object(report, model, value, path):
        return
    try:
        model.model_validate(value)
    except ValidationError as refused:
        inner = (one for one in refused.errors(include_url=False) if len(one["loc"]) > 1)
        # Of a field that may be of several types, the error of the type its value has.
        by_type = sorted(inner, key=lambda one: not one["type"].endswith("_type"))
        for error in {one["loc"][0]: one for one in by_type}.values():
            field = str(error["loc"][0])
            _, message = _translate(field, error)
            report.add(join_path(path, field), "invalid_value", message)


def _explain_object(report: Report, model: type[BaseModel], value: Any, path: str) -> bool:
    """Report what is wrong with an object itself, not with what is in it; False if it is none."""
    if not isinstance(value, dict):
        report.add(path, "wrong_type", f"expected an object, not {describe_type(value)}")
        return False
    names = names_of(model)
    known = {name: _stand_in(name, value[name]) for name in names if name in value}
    meant: set[str | None] = set()
    if len(known) < len(value):
        suggestions = Suggestions(names)
        for name in value:
            if name not in known:
                meant.add(suggestions.nearest(name))
                message = f"unknown field{suggestions.hint(name)}"
                if model is WorkflowDefinition and name in _OF_DAG:
                    meant.add("dag")
                    message = "unknown field; it belongs in dag"
                report.add(join_path(path, name), "unknown_field", message)
    try:
        model.model_validate(known)
    except ValidationError as refused:
        for error in refused.errors(include_url=False):
            field = str(error["loc"][0])
            # A field that is there under a misspelt name is not missing as well.
            is_told = error["type"] == "missing" and field in meant
            if len(error["loc"]) == 1 and not is_told:
                code, message = _translate(field, error)
                report.add(join_path(path, field), code, message)
    return True


def _stand_in(field: str, value: Any) -> Any:
    """Something valid of the same type, where what is in the value is explained on its own.

    A million bad items would be a million errors, each of them found anew at every level above.
    """
    stand_in = _STAND_INS.get(field)
    return stand_in if value and isinstance(value, type(stand_in)) else value


def _translate(field: str, error: ErrorDetails) -> tuple[str, str]:
    """The code and the message for an error of pydantic's."""
    kind, value = error["type"], error["input"]
    expected = {
        "string_type": "a string",
        "list_type": "an array",
        "dict_type": "an object",
        "model_type": "an object",
    }
    if kind == "string_type" and field == "over":
        hint = "put a list that does not change into `input`, and name it here: {{ input.list }}"
        return "wrong_type", f"expected a template, not {describe_type(value)}; {hint}"
    if kind in expected:
        return "wrong_type", f"expected {expected[kind]}, not {describe_type(value)}"
    if kind == "missing":
        return "missing_field", "this field is required"
    if kind == "string_pattern_mismatch":
        if field == "id":
            return "bad_id", f"bad node id {quote(value)}; use {_PATTERNS[field]}"
        hint = template_hint(error)
        return "invalid_value", f"expected {_PATTERNS[field]}, not {quote(value)}{hint}"
    if kind == "too_short" and field == "nodes":
        return "empty_dag", "a workflow needs at least one node"
    return "invalid_value", message_of(error) + template_hint(error)
