"""The JSON Schema of workflow files, from the models that the API checks them with."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from flowd.cli.kinds import KINDS, Kind
from flowd.handlers.config_schema import schema_of
from flowd.handlers.registry import Handler
from flowd.workflow.definition import WorkflowDefinition
from flowd.workflow.ids import NAME_PATTERN

_DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"
# What a value of a config may be instead: a text that is filled in, or a secret.
_RENDERED: Final = (
    {"type": "string", "pattern": r"\{\{"},
    {"type": "object", "required": ["$secret"]},
)


def file_schema(handlers: Mapping[str, Handler]) -> dict[str, Any]:
    """Of one document of a file whose nodes may name these handlers."""
    schema: dict[str, Any] = _without_titles(WorkflowDefinition.model_json_schema())
    node = schema["$defs"]["NodeDefinition"]
    node["properties"]["handler"] = {"type": "string", "enum": sorted(handlers)}
    node["allOf"] = [
        _config_of(name, schema_of(handler.model))
        for name, handler in sorted(handlers.items())
        if handler.model is not None
    ]
    parts = schema.pop("$defs")
    parts["WorkflowDefinition"] = schema
    default, *others = KINDS
    told: dict[str, Any] = {"$ref": f"#/$defs/{default.model.__name__}"}
    for kind in others:
        parts |= _part_of(kind)
        has_mark = {"anyOf": [{"required": [mark]} for mark in sorted(kind.marks)]}
        is_default = {"anyOf": [{"required": [mark]} for mark in sorted(default.marks)]}
        told = {
            "if": {"allOf": [has_mark, {"not": is_default}]},
            "then": {"$ref": f"#/$defs/{kind.model.__name__}"},
            "else": told,
        }
    return {"$schema": _DIALECT, "title": "A document of flowd", **told, "$defs": parts}


def _part_of(kind: Kind) -> dict[str, Any]:
    """Of a document that stands under a name which the model does not know."""
    schema = _without_titles(kind.model.model_json_schema())
    parts: dict[str, Any] = schema.pop("$defs", {})
    schema["properties"] = {"name": {"type": "string", "pattern": NAME_PATTERN}} | schema[
        "properties"
    ]
    schema["required"] = ["name", *schema.get("required", ())]
    return {**parts, kind.model.__name__: schema}


def _config_of(handler: str, schema: dict[str, Any]) -> dict[str, Any]:
    """What holds for the config of the nodes with this handler."""
    config = {
        "type": "object",
        "properties": {
            name: _or_rendered(value) for name, value in schema.get("properties", {}).items()
        },
        "additionalProperties": schema.get("additionalProperties", False),
        "required": schema.get("required", []),
    }
    required = ["config"] if config["required"] else []
    return {
        "if": {"properties": {"handler": {"const": handler}}, "required": ["handler"]},
        "then": {"properties": {"config": config}, "required": required},
    }


def _or_rendered(schema: dict[str, Any]) -> dict[str, Any]:
    """One value, without what is in it: a template may stand anywhere there."""
    about: dict[str, Any] = {
        key: schema[key] for key in ("description", "default") if key in schema
    }
    kinds = [one.get("type") for one in schema.get("anyOf", [schema])]
    if schema.get("type") in ("string", "integer", "number", "boolean"):
        literal = {key: value for key, value in schema.items() if key != "title"}
    elif all(isinstance(one, str) for one in kinds):
        literal = {"type": kinds}
    else:
        return about
    return {**about, "anyOf": [literal, *_RENDERED]}


def _without_titles(value: Any) -> Any:
    """pydantic repeats each name as a title."""
    if isinstance(value, list):
        return [_without_titles(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        name: _without_titles(one)
        for name, one in value.items()
        if name != "title" or not isinstance(one, str)
    }
