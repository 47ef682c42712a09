"""Which handlers there are, and what a handler is given.

Naming the handlers imports none of them: the API only needs the names, and a worker pays for a
handler's libraries when the first node needs it.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from flowd.errors import UnknownHandler

if TYPE_CHECKING:
    from flowd.config import Settings
    from flowd.workers.http_client import HttpClient

HandlerFunction = Callable[[dict[str, Any], "HandlerContext"], Any]
Kind = Literal["async", "thread", "inline"]
_F = TypeVar("_F", bound=HandlerFunction)

_MARK = "__flowd_handler__"

_BUILT_IN_MODULES: Mapping[str, str] = {
    "noop": "flowd.workers.handlers.noop",
    "call_external_service": "flowd.workers.handlers.call_external_service",
    "llm": "flowd.workers.handlers.llm",
    "unreliable_handler": "flowd.workers.handlers.unreliable_handler",
}


class Resources:
    """What the handlers of one worker process share; opened at first use, closed at drain."""

    __slots__ = ("_http",)

    def __init__(self) -> None:
        self._http: HttpClient | None = None

    @property
    def http(self) -> HttpClient:
        """The pooled HTTP client. Must be used on the worker's event loop."""
        if self._http is None:
            # Imported here so that a worker that never calls out never loads an HTTP library.
            from flowd.workers.http_client import HttpClient

            self._http = HttpClient()
        return self._http

    async def close(self) -> None:
        """Close what was opened. Safe to call twice; the next use opens it again."""
        if self._http is not None:
            http, self._http = self._http, None
            await http.close()


@dataclass(slots=True)
class HandlerContext:
    """The node a handler is called for, and what it may use. `attempt` counts from 1."""

    execution_id: str
    node_id: str
    attempt: int
    settings: Settings
    resources: Resources

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of a node, so that a service can tell a repetition."""
        return f"{self.execution_id}:{self.node_id}"


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that runs a node: on the loop (`async`, `inline`) or in a thread of its own.

    It is called with the rendered config and the context, and returns the node's output, a dict
    that JSON can hold. Any exception fails the node; `HandlerFailed` carries a text for users.
    """

    name: str
    function: HandlerFunction
    kind: Kind


def handler(name: str, *, inline: bool = False) -> Callable[[_F], _F]:
    """Mark a sync or async function as the handler `name`; the function itself stays as it is.

    `inline` is for a sync function that never blocks: it runs on the event loop, not in a thread.
    """

    def mark(function: _F) -> _F:
        is_async = inspect.iscoroutinefunction(function)
        if is_async and inline:
            raise TypeError(f"handler {name!r} is async; inline is for sync functions only")
        kind: Kind = "async" if is_async else "inline" if inline else "thread"
        setattr(function, _MARK, Handler(name, function, kind))
        return function

    return mark


class Registry:
    """Handler names and the modules that hold them; a module is imported at first use."""

    def __init__(self, modules: Mapping[str, str]) -> None:
        self._modules = dict(modules)
        self._loaded: dict[str, Handler] = {}

    def names(self) -> tuple[str, ...]:
        """Every handler's name, in order of registration."""
        return tuple(self._modules)

    def load(self, name: str) -> Handler:
        """The handler of this name. Raises UnknownHandler, or what importing its module raises."""
        found = self._loaded.get(name)
        if found is None:
            found = self._loaded[name] = self._import(name)
        return found

    def _import(self, name: str) -> Handler:
        if name not in self._modules:
            raise UnknownHandler(self._unknown(name))
        module = import_module(self._modules[name])
        for member in vars(module).values():
            mark = getattr(member, _MARK, None)
            if isinstance(mark, Handler) and mark.name == name:
                return mark
        raise UnknownHandler(
            f"module {module.__name__!r} holds no handler {name!r}; "
            f'mark its function with @handler("{name}")'
        )

    def _unknown(self, name: str) -> str:
        close = difflib.get_close_matches(name, self._modules, n=1)
        if close:
            return f"unknown handler {name!r}; did you mean {close[0]!r}?"
        return f"unknown handler {name!r}; the handlers are {', '.join(self._modules)}"


def built_in_registry() -> Registry:
    """The handlers that come with flowd."""
    return Registry(_BUILT_IN_MODULES)
