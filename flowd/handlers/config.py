"""Read a node's config into a handler's own model, or say everything that is wrong.

At submit the config still holds its templates: what depends on them cannot be judged, and is not.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Annotated, Any, TypeVar, get_args

import orjson
from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import ErrorDetails, PydanticCustomError

from flowd.errors import Fail, Problem
from flowd.suggestions import nearest
from flowd.workflow.refusals import message_of
from flowd.workflow.secret_places import SECRET_KEY
from flowd.workflow.templating import OPENING


class NodeConfig(BaseModel):
    """What a handler knows in `config`. A key it does not know is an error, never ignored."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


def _to_text(value: Any) -> Any:
    # A prompt that is exactly one template keeps its JSON type. It is read as text, so anything
    # else goes in the way a template inside text would: as compact JSON.
    return orjson.dumps(value).decode() if isinstance(value, dict | list | int | float) else value


def _check_schema(schema: dict[str, Any], info: ValidationInfo) -> dict[str, Any]:
    if is_submission(info):
        from flowd.handlers.json_schema import find_schema_flaw

        if flaw := find_schema_flaw(schema):
            message = "this is not a valid JSON Schema: {flaw}"
            raise PydanticCustomError("schema", message, {"flaw": flaw})
    return schema


PromptText = Annotated[str, BeforeValidator(_to_text)]
SchemaObject = Annotated[dict[str, Any], AfterValidator(_check_schema)]

_C = TypeVar("_C", bound=BaseModel)
_SUBMISSION = "submission"
_MEANT = re.compile(r"did you mean '(.*)'\?$")


def is_submission(info: ValidationInfo) -> bool:
    """Whether a config is checked at submit, where a check may take its time."""
    return info.context == _SUBMISSION


def read_config(model: type[_C], config: dict[str, Any]) -> _C:
    """Raises Fail naming every problem, and no value: a config may hold secrets."""
    try:
        return _validate(model, config)
    except ValidationError as error:
        sentences = [
            _sentence(model, config, details) for details in error.errors(include_url=False)
        ]
        raise Fail("; ".join(dict.fromkeys(sentences))) from None


def find_config_problems(
    model: type[BaseModel], config: dict[str, Any], path: str
) -> list[Problem]:
    """What is wrong with a config before its templates are rendered. `path` leads to it."""
    try:
        _validate(model, config, _SUBMISSION)
    except ValidationError as error:
        found = [
            _problem(model, config, details, path)
            for details in error.errors(include_url=False)
            if _can_be_judged(config, details)
        ]
        return _without_misspelt(found)
    except Exception as error:  # noqa: BLE001 - a validator of somebody else's model may do anything
        if _holds_template(config):
            return []
        return [Problem(path, "bad_config", f"checking it raised {type(error).__name__}")]
    return []


def _without_misspelt(problems: list[Problem]) -> list[Problem]:
    """Without the keys that are missing because they are there under a misspelt name."""
    meant = {
        f"{one.path.rpartition('.')[0]}.{match[1]}"
        for one in problems
        if (match := _MEANT.search(one.message)) and one.code == "unknown_config"
    }
    return [one for one in problems if one.code != "missing_config" or one.path not in meant]


def _validate(model: type[_C], config: dict[str, Any], context: str | None = None) -> _C:
    # A model that does not say what becomes of keys it does not know would lose them silently.
    extra = None if "extra" in model.model_config else "forbid"
    return model.model_validate(config, extra=extra, context=context)  # type: ignore[arg-type]


def _can_be_judged(config: dict[str, Any], details: ErrorDetails) -> bool:
    values: list[Any] = [config]
    for step in _written(config, details["loc"]):
        values.append(values[-1][step])
    if details["type"] not in ("missing", "extra_forbidden"):
        return not _holds_template(values[-1])
    objects = values[:-1] if details["type"] == "extra_forbidden" else values
    return not any(map(_is_secret, objects))


def _is_secret(value: Any) -> bool:
    # One branch of a union may be an object, to which a secret is one with a key too many.
    return isinstance(value, dict) and value.keys() == {SECRET_KEY}


def _holds_template(value: Any) -> bool:
    """True where a template or a secret will put something else."""
    pending = [value]
    while pending:
        item = pending.pop()
        if isinstance(item, str) and OPENING in item:
            return True
        if isinstance(item, dict):
            if SECRET_KEY in item:
                return True
            pending.extend(item.values())
        elif isinstance(item, list):
            pending.extend(item)
    return False


def _written(config: Any, loc: tuple[int | str, ...]) -> list[Any]:
    """The steps of a location that are in the config: pydantic names the branches of unions too."""
    steps: list[Any] = []
    value = config
    for step in loc:
        is_index = isinstance(value, list) and isinstance(step, int) and step < len(value)
        if is_index or (isinstance(value, dict) and step in value):
            value = value[step]
            steps.append(step)
    return steps


def _steps(config: dict[str, Any], details: ErrorDetails) -> list[Any]:
    steps = _written(config, details["loc"])
    return [*steps, details["loc"][-1]] if details["type"] == "missing" else steps


def _problem(
    model: type[BaseModel], config: dict[str, Any], details: ErrorDetails, path: str
) -> Problem:
    steps = _steps(config, details)
    for step in steps:
        path += f"[{step}]" if isinstance(step, int) else f".{step}"
    if details["type"] == "missing":
        description = _description(model, steps)
        hint = f"; {description}" if description else ""
        return Problem(path, "missing_config", f"this key is required{hint}")
    if details["type"] == "extra_forbidden":
        return Problem(path, "unknown_config", f"unknown key; {_known(model, steps)}")
    return Problem(path, "bad_config", _message(model, steps, details))


def _sentence(model: type[BaseModel], config: dict[str, Any], details: ErrorDetails) -> str:
    steps = _steps(config, details)
    path = ".".join(("config", *map(str, steps)))
    if details["type"] == "missing":
        description = _description(model, steps)
        return f"{path} is missing: {description}" if description else f"{path} is missing"
    if details["type"] == "extra_forbidden":
        return f"{path} is not known to this handler; {_known(model, steps)}"
    return f"{path}: {_message(model, steps, details)}"


def _message(model: type[BaseModel], steps: list[Any], details: ErrorDetails) -> str:
    """Of a value of the wrong type with what the key is for."""
    is_of_wrong_type = steps and details["type"].endswith("_type")
    description = _description(model, steps) if is_of_wrong_type else ""
    return "; ".join(filter(None, (message_of(details), description)))


def _keys(model: type[BaseModel] | None) -> dict[str, str]:
    """The keys of a model as they are written, with what each is for."""
    fields = model.model_fields.items() if model else ()
    return {field.alias or name: field.description or "" for name, field in fields}


def _description(model: type[BaseModel], steps: list[Any]) -> str:
    return _keys(_model_at(model, steps[:-1])).get(str(steps[-1]), "")


def _known(model: type[BaseModel], steps: list[Any]) -> str:
    known = sorted(_keys(_model_at(model, steps[:-1])))
    near = nearest(str(steps[-1]), known)
    return f"did you mean {near!r}?" if near else f"it knows {', '.join(known)}"


def _model_at(model: type[BaseModel], steps: list[Any]) -> type[BaseModel] | None:
    """The model these steps lead to; None when there is not exactly one."""
    current: type[BaseModel] | None = model
    for step in steps:
        if current is not None and isinstance(step, str):
            fields = current.model_fields.items()
            matching = [field for name, field in fields if (field.alias or name) == step]
            models = list(_models_in(matching[0].annotation)) if matching else []
            current = models[0] if len(models) == 1 else None
    return current


def _models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for argument in get_args(annotation):
        yield from _models_in(argument)
