"""Say what pydantic refused in flowd's words: the pieces that every place which asks it needs."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, get_args

from flowd.errors import Problem
from flowd.workflow.strict_json import join_path
from flowd.workflow.suggestions import Suggestions

if TYPE_CHECKING:
    from pydantic import BaseModel
    from pydantic_core import ErrorDetails


def message_of(error: ErrorDetails) -> str:
    if error["type"] == "dict_type":
        return "input should be an object"
    text = error["msg"].removeprefix("Value error, ").replace(" after validation", "")
    return text[:1].lower() + text[1:]


def template_hint(error: ErrorDetails) -> str:
    """Of a field outside of a config; to stand behind a text. Some of these take a template, and
    are only too long."""
    given = error["input"]
    is_template = isinstance(given, str) and "{{" in given
    return "; it takes no template" if is_template and "too_long" not in error["type"] else ""


def names_of(model: type[BaseModel]) -> list[str]:
    """The fields of a model as they are written."""
    return [field.alias or name for name, field in model.model_fields.items()]


def hint_among(name: str, known: Collection[str]) -> str:
    """Which of the known names may have been meant, or else all of them; to stand behind a text."""
    return Suggestions(known).hint(name) or (f"; there is {', '.join(known)}" if known else "")


def _inner(model: type[BaseModel], steps: Sequence[str | int]) -> type[BaseModel] | None:
    """The model that these fields lead to; None where they lead to no single one."""
    from pydantic import BaseModel

    for step in steps:
        named = {field.alias or name: field for name, field in model.model_fields.items()}
        kind = named[str(step)].annotation if str(step) in named else None
        kinds = [
            one
            for one in (kind, *get_args(kind))
            if isinstance(one, type) and issubclass(one, BaseModel)
        ]
        if len(kinds) != 1:
            return None
        (model,) = kinds
    return model


def problem_of(model: type[BaseModel], error: ErrorDetails) -> Problem:
    """What a model refused, in flowd's words and with its path."""
    path, loc, kind = "", error["loc"], error["type"]
    for step in loc:
        path = join_path(path, step) if isinstance(step, str) else f"{path}[{step}]"
    if kind == "extra_forbidden":
        inner = _inner(model, loc[:-1])
        hint = hint_among(str(loc[-1]), names_of(inner)) if inner else ""
        return Problem(path, "unknown_field", f"unknown field{hint}")
    if kind == "missing":
        return Problem(path, "missing_field", "this field is required")
    if kind == "model_type":
        return Problem(path, "wrong_type", "expected an object")
    return Problem(path, "invalid_value", message_of(error) + template_hint(error))
