"""One endpoint: where it is, who may call it, what it takes and answers.

The route table is the single source: the OpenAPI document, the scope check and the test that walks
all routes read it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Match, Route
from starlette.types import Scope as Received

Scope = Literal["public", "read", "trigger", "admin"]
EndpointFunction = Callable[[Request], Awaitable[Response]]
Answers = Mapping[int, type[BaseModel] | tuple[type[BaseModel] | str, ...] | str]


@dataclass(frozen=True, slots=True)
class Description:
    """What the OpenAPI document says of an endpoint beyond its path and method.

    `answers` has the model of each status below 400, several where it may be one of them; a media
    type stands for a body that is no model, also among several, "" for none. `problems` are the
    public codes of the errors it may answer with; those that any request may meet are added to all.
    `query` holds the query parameters, `body` the request's.
    """

    summary: str
    scope: Scope
    answers: Answers
    problems: tuple[str, ...] = ()
    query: type[BaseModel] | None = None
    body: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


# A path that is written out is no value of a parameter: `batch` is no id of an execution.
_WHOLE_PATHS: Final[set[str]] = set()


class Endpoint(Route):
    """A route that is described. The summary is the first line of the function's docstring."""

    def __init__(
        self,
        method: Literal["GET", "PUT", "POST", "DELETE"],
        path: str,
        answer: EndpointFunction,
        *,
        scope: Scope,
        answers: Answers,
        problems: tuple[str, ...] = (),
        query: type[BaseModel] | None = None,
        body: type[BaseModel] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(path, answer, methods=[method])
        self.method = method
        self._has_parameters = "{" in path
        if not self._has_parameters:
            _WHOLE_PATHS.add(path)
        summary = (answer.__doc__ or "").partition("\n")[0]
        self.description = Description(
            summary, scope, answers, problems, query, body, dict(headers or {})
        )

    def matches(self, scope: Received) -> tuple[Match, Received]:
        if self._has_parameters and scope["path"] in _WHOLE_PATHS:
            return Match.NONE, {}
        return super().matches(scope)
