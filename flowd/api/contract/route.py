"""One endpoint: where it is, who may call it, what it takes and answers.

The route table is the single source: the OpenAPI document, the scope check and the test that walks
all routes read it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Match, Route, Router
from starlette.types import ASGIApp, Lifespan, Receive, Send
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
        self.app = _answering(answer)
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


def _answering(answer: EndpointFunction) -> ASGIApp:
    async def app(scope: Received, receive: Receive, send: Send) -> None:
        response = await answer(Request(scope, receive, send))
        await response(scope, receive, send)

    return app


class EndpointRouter(Router):
    """Starlette's, but that it finds an endpoint without trying all of them in turn."""

    def __init__(self, routes: Sequence[BaseRoute], lifespan: Lifespan[Any]) -> None:
        # Starlette's redirects are to http://, whatever the proxy before flowd speaks.
        super().__init__(routes, redirect_slashes=False, lifespan=lifespan)
        self._whole: dict[tuple[str, str], Endpoint] = {}
        self._by_beginning: dict[tuple[str, str], list[Endpoint]] = defaultdict(list)
        for route in routes:
            if isinstance(route, Endpoint):
                for method in route.methods or ():
                    if "{" in route.path:
                        self._by_beginning[method, _beginning(route.path)].append(route)
                    else:
                        self._whole[method, route.path] = route

    async def app(self, scope: Received, receive: Receive, send: Send) -> None:
        endpoint = self._find(scope) if scope["type"] == "http" else None
        app = super().app if endpoint is None else endpoint.app
        await app(scope, receive, send)

    def _find(self, scope: Received) -> Endpoint | None:
        """None where it is for Starlette to say what is wrong."""
        method, path = scope["method"], scope["path"]
        if endpoint := self._whole.get((method, path)):
            scope["path_params"] = {}
            return endpoint
        for endpoint in self._by_beginning.get((method, _beginning(path)), ()):
            match, found = endpoint.matches(scope)
            if match is Match.FULL:
                scope.update(found)
                return endpoint
        return None


def _beginning(path: str) -> str:
    """The part before the second slash; endpoints have no parameter there."""
    return path[1:].partition("/")[0]
