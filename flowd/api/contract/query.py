"""Read the query parameters of a request into the model that describes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeVar, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from starlette.requests import Request

from flowd.errors import InvalidRequest, Problem
from flowd.workflow.refusals import hint_among, message_of, names_of
from flowd.workflow.report import Report

PARAMETERS_MAX: Final = 100

_M = TypeVar("_M", bound=BaseModel)
_P = TypeVar("_P")


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
            message = f"unknown parameter{hint_among(name, names_of(model))}"
            problems.add(f"query.{name[:64]}", "unknown_parameter", message)
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
            problems.add(path, "invalid_value", message_of(error))
        raise InvalidRequest(problems.problems()) from None
    if listed := problems.problems():
        raise InvalidRequest(listed)
    return query


def read_last_event(
    request: Request, said: str, parse: Callable[[str], _P | None], described: str
) -> _P | None:
    """Where a stream of events goes on: by the header `Last-Event-ID`, which browsers send by
    themselves, else by what was `said` in the query; None for neither.

    Raises InvalidRequest for an id that `parse` does not know, with one `described` beside it.
    """
    header = request.headers.get("last-event-id", "").strip()
    text = header or said
    position = parse(text)
    if text and position is None:
        path = "headers.Last-Event-ID" if header else "query.last_event_id"
        message = f"{text[:64]!r} is not the id of {described}"
        raise InvalidRequest([Problem(path, "invalid_value", message)])
    return position


def _is_list(field: FieldInfo) -> bool:
    return get_origin(field.annotation) is list
