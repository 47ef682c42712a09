"""Read a node's rendered config into a handler's own model, or say everything that is wrong."""

from __future__ import annotations

import difflib
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic_core import ErrorDetails

from flowd.errors import HandlerFailed


class NodeConfig(BaseModel):
    """What a handler knows in `config`. A key it does not know is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


_C = TypeVar("_C", bound=NodeConfig)


def read_config(model: type[_C], config: dict[str, Any]) -> _C:
    """Raises HandlerFailed naming every problem, and no value: a config may hold secrets."""
    try:
        return model.model_validate(config)
    except ValidationError as error:
        problems = [_sentence(model, details) for details in error.errors(include_url=False)]
        raise HandlerFailed("; ".join(problems)) from None


def _sentence(model: type[NodeConfig], details: ErrorDetails) -> str:
    path = ".".join(("config", *map(str, details["loc"])))
    if details["type"] == "missing":
        return f"{path} is missing: {_description(model, str(details['loc'][-1]))}"
    if details["type"] == "extra_forbidden":
        return f"{path} is not known to this handler; {_known(model, str(details['loc'][-1]))}"
    message = details["msg"]
    return f"{path}: {message[:1].lower()}{message[1:]}"


def _keys(model: type[NodeConfig]) -> dict[str, str]:
    fields = model.model_fields.items()
    return {field.alias or name: field.description or "" for name, field in fields}


def _description(model: type[NodeConfig], key: str) -> str:
    return _keys(model)[key]


def _known(model: type[NodeConfig], key: str) -> str:
    known = sorted(_keys(model))
    close = difflib.get_close_matches(key, known, n=1)
    return f"did you mean {close[0]!r}?" if close else f"it knows {', '.join(known)}"
