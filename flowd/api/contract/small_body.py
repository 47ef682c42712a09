"""Read the small body that may come with a request, into the model that describes it."""

from __future__ import annotations

import asyncio
from typing import Any, Final, TypeVar

from pydantic import ConfigDict, ValidationError
from starlette.requests import Request

from flowd.api.contract.model import Model
from flowd.api.http.body import read_body
from flowd.api.shared import shared_of
from flowd.errors import InvalidRequest, InvalidWorkflow, Problem
from flowd.workflow.refusals import problem_of
from flowd.workflow.strict_json import parse_json

# Parsed within a few milliseconds, whatever it is.
SMALL_BYTES_MAX: Final = 16 * 1024

_M = TypeVar("_M", bound="SmallBody")


class SmallBody(Model):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, populate_by_name=True)


async def read_small_body(
    request: Request, model: type[_M], bytes_max: int | None = None
) -> tuple[_M, bytes]:
    """The body as its model, and as it was sent; one that is empty has all its defaults.

    It may be as long as any, or no longer than `bytes_max`. Raises InvalidRequest with everything
    that is wrong with it.
    """
    limit = shared_of(request.app).body_bytes_max
    longest = limit if bytes_max is None else min(limit, bytes_max)
    body = await read_body(request, longest, is_setting=longest != bytes_max)
    document, hidden = await parse_body(body)
    try:
        parsed = model.model_validate(document)
    except ValidationError as refused:
        problems = [problem_of(model, error) for error in refused.errors(include_url=False)]
        raise InvalidRequest([*problems, *hidden]) from None
    if hidden:
        raise InvalidRequest(hidden)
    return parsed, body


async def parse_body(body: bytes) -> tuple[Any, list[Problem]]:
    """The document, `{}` for an empty body, and what a parser passes over in silence: what hides
    something is parsed a second time, slowly. Raises InvalidRequest."""
    if not body.strip():
        return {}, []
    try:
        if len(body) <= SMALL_BYTES_MAX:
            document, _, hidden = parse_json(body)
        else:
            document, _, hidden = await asyncio.to_thread(parse_json, body)
    except InvalidWorkflow as error:
        raise InvalidRequest(error.problems) from None
    return document, hidden
