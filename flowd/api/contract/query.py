"""Read the query parameters of a request into the model that describes them."""

from __future__ import annotations

from typing import Any, Final, TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from starlette.requests import Request

from flowd.errors import InvalidRequest, Problem
from flowd.workflow.report import Report
from flowd.workflow.suggestions import Suggestions

PARAMETERS_MAX: Final = 100

_M = TypeVar("_M", bound=BaseModel)


def read_query(request: Request, model: type[_M]) -> _M:
    """The parameters; a list may be written by commas, or by repeating its parameter.

    Raises InvalidRequest with everything that is wrong with them.
    """
    if not request.scope["query_string"]:
        return model()
    fields = {field.alias or name: field for name, field in model.model_fields.items()}
    values: dict[str, Any] = {}
    problems = Report()
    if len(request.query_params.multi_items()) > PARAMETERS_MAX:
        message = f"more than {PARAMETERS_MAX} parameters"
        raise InvalidRequest([Problem("query", "too_many_parameters", message)])
    for name in request.query_params:
        written = request.query_params.getlist(name)
        if name not in fields:
            problems.extend([_unknown(name, list(fields))])
        elif _is_list(fields[name]):
            values[name] = [one for text in written for one in text.split(",")]
        elif len(written) > 1:
            problems.add(f"query.{name}", "duplicate_parameter", "given twice; once is enough")
        else:
            values[name] = written[0]
    try:
        query = model.model_validate(values)
    except ValidationError as refused:
        for error in refused.errors(include_url=False):
            path = ".".join(("query", *map(str, error["loc"])))
            text = error["msg"].removeprefix("Value error, ")
            problems.add(path, "invalid_value", text[:1].lower() + text[1:])
        raise InvalidRequest(problems.problems()) from None
    if listed := problems.problems():
        raise InvalidRequest(listed)
    return query


def _unknown(name: str, known: list[str]) -> Problem:
    hint = Suggestions(known).hint(name) or (f"; there is {', '.join(known)}" if known else "")
    return Problem(f"query.{name[:64]}", "unknown_parameter", f"unknown parameter{hint}")


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is list
