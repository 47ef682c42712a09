"""Know every handler by name, and how it is called.

Naming the built-in handlers imports none of them: a worker pays for a handler's libraries when the
first node needs it.
"""

from __future__ import annotations

import asyncio
import functools
import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any, get_origin, is_typeddict

from flowd.errors import BadHandlers, UnknownHandler
from flowd.handlers import MARK, HandlerKind, Mark, handler, underlying
from flowd.handlers.context import HandlerContext, Resources
from flowd.suggestions import did_you_mean
from flowd.workflow.ids import MAP_HANDLER

if TYPE_CHECKING:
    from pydantic import BaseModel


__all__ = ["Handler", "HandlerContext", "Registry", "Resources", "built_in_registry", "handler"]

HandlerFunction = Callable[[dict[str, Any], "HandlerContext"], Any]

_BUILT_IN_MODULES: Mapping[str, str] = {
    "noop": "flowd.handlers.builtin.noop",
    "call_external_service": "flowd.handlers.builtin.call_external_service",
    "llm": "flowd.handlers.builtin.llm",
    "unreliable_handler": "flowd.handlers.builtin.unreliable_handler",
    "delay": "flowd.handlers.builtin.delay",
    "signal": "flowd.handlers.builtin.signal",
    "transform": "flowd.handlers.builtin.transform",
    "shell": "flowd.handlers.builtin.shell",
    "workflow": "flowd.handlers.builtin.workflow",
}
# What flowd itself calls; no workflow can name it.
_INNER_MODULES: Mapping[str, str] = {
    "flowd.answer_check": "flowd.handlers.json_schema",
    MAP_HANDLER: "flowd.handlers.map_node",
}


@dataclass(frozen=True, slots=True)
class Handler:
    """A function that runs a node: on the loop (`async`, `inline`), in a thread or in a process.

    It is called with the rendered config and the context, and returns the node's output, a dict
    that JSON can hold. Any exception fails the node; `HandlerFailed` carries a text for users.
    `model` is what the config is read into; None takes any.
    """

    name: str
    function: HandlerFunction
    kind: HandlerKind
    model: type[BaseModel] | None = None
    description: str = ""
    place: str = ""


class Registry:
    """Handler names and the modules that hold them; a module is imported at first use.

    `loaded` are handlers whose modules are imported already.
    """

    def __init__(self, modules: Mapping[str, str], loaded: Iterable[Handler] = ()) -> None:
        self._modules = dict(modules)
        self._loaded = {one.name: one for one in loaded}
        self._names = (*self._modules, *self._loaded)

    def names(self) -> tuple[str, ...]:
        """Every handler's name, in order of registration."""
        return self._names

    def has_loaded(self, kind: HandlerKind) -> bool:
        """Whether a handler of this kind is among those whose modules are imported."""
        return any(one.kind == kind for one in self._loaded.values())

    def load(self, name: str) -> Handler:
        """The handler of this name. Raises UnknownHandler, or what importing its module raises."""
        loaded = self._loaded.get(name)
        if loaded is None:
            loaded = self._loaded[name] = self._import(name)
        return loaded

    def _import(self, name: str) -> Handler:
        place = self._modules.get(name) or _INNER_MODULES.get(name)
        if place is None:
            raise UnknownHandler(self._unknown(name))
        module = import_module(place)
        for mark in marks_of(module):
            if mark.name == name:
                return bind(mark)
        raise UnknownHandler(
            f"module {module.__name__!r} holds no handler {name!r}; "
            f'mark its function with @handler("{name}")'
        )

    def _unknown(self, name: str) -> str:
        hint = did_you_mean(name, self._names) or f"; the handlers are {', '.join(self._names)}"
        return f"unknown handler {name!r}{hint}"


def built_in_registry(loaded: Iterable[Handler] = ()) -> Registry:
    """The handlers that come with flowd, and those given."""
    return Registry(_BUILT_IN_MODULES, loaded)


def marks_of(module: ModuleType) -> Iterator[Mark]:
    """The marked functions of a module, each once, however many names it has there."""
    # Statically: a lazy proxy among them runs code of its own when it is asked for an attribute.
    members = list(vars(module).values())
    marks = (inspect.getattr_static(member, MARK, None) for member in members)
    yield from dict.fromkeys(mark for mark in marks if type(mark) is Mark)


def place_of(mark: Mark) -> str:
    """`my_handlers.greet (/srv/my_handlers.py:12)`"""
    function = underlying(mark.function)
    name = f"{function.__module__}.{getattr(function, '__qualname__', repr(function))}"
    code = getattr(function, "__code__", None)
    return f"{name} ({code.co_filename}:{code.co_firstlineno})" if code else name


def bind(mark: Mark) -> Handler:
    """The marked function, made callable the way a worker calls. Raises BadHandlers."""
    try:
        parameters = _positional(mark)
        model = _model_of(mark, parameters[0])
    except (TypeError, ValueError, AttributeError) as error:
        # What can be called need not say how, and an annotation may be anything.
        raise BadHandlers(
            f"handler {mark.name!r}: how {place_of(mark)} is called cannot be read: {error}"
        ) from error
    function = mark.function
    if mark.kind == "thread" and inspect.iscoroutinefunction(underlying(function)):
        function = _awaited(function)
    function = _pass_on(function, model, takes_context=len(parameters) == 2)
    return Handler(mark.name, function, mark.kind, model, _description(mark), place_of(mark))


def _awaited(function: Callable[..., Any]) -> Callable[..., Any]:
    """An async function behind a sync decorator, which may await it or leave that to the caller."""

    def call(*arguments: Any) -> Any:
        result = function(*arguments)
        return asyncio.run(result) if asyncio.iscoroutine(result) else result

    return call


def _description(mark: Mark) -> str:
    function = mark.function
    while isinstance(function, functools.partial):
        function = function.func
    return inspect.getdoc(function) or ""


def _positional(mark: Mark) -> list[inspect.Parameter]:
    """The one or two parameters a handler is called with."""
    parameters = list(inspect.signature(mark.function).parameters.values())
    required = [
        one for one in parameters if one.default is one.empty and one.kind < one.VAR_POSITIONAL
    ]
    positional = [one for one in parameters if one.kind < one.VAR_POSITIONAL]
    has_required_keyword = any(
        one.kind is one.KEYWORD_ONLY and one.default is one.empty for one in parameters
    )
    if not positional or len(required) > 2 or has_required_keyword:
        raise BadHandlers(
            f"handler {mark.name!r} cannot be called: {place_of(mark)} takes "
            f"{inspect.signature(mark.function)}; it must take the config, and may take a context"
        )
    return positional[: max(1, min(2, len(positional)))]


def _model_of(mark: Mark, parameter: inspect.Parameter) -> type[BaseModel] | None:
    annotation = parameter.annotation
    if isinstance(annotation, str):
        try:
            # What typing.get_type_hints does, for this one: the others may be for type checkers.
            annotation = eval(annotation, getattr(underlying(mark.function), "__globals__", {}))
        except Exception as error:
            raise BadHandlers(
                f"handler {mark.name!r}: the annotation {annotation!r} of {place_of(mark)} "
                f"cannot be read: {error}; import its names at the top of the module"
            ) from error
    if hasattr(annotation, "model_validate"):
        return annotation  # type: ignore[no-any-return]
    kind = get_origin(annotation) or annotation
    is_dict = is_typeddict(kind) or (isinstance(kind, type) and issubclass(dict, kind))
    if not is_dict and kind not in (inspect.Parameter.empty, Any):
        raise BadHandlers(
            f"handler {mark.name!r}: {place_of(mark)} takes a config that is {annotation!r}; "
            "annotate it with dict or with one pydantic model"
        )
    return None


def _pass_on(
    function: Callable[..., Any], model: type[BaseModel] | None, *, takes_context: bool
) -> HandlerFunction:
    if model is None:
        if takes_context:
            return function
        return lambda config, _context: function(config)
    from flowd.handlers.config import read_config

    if takes_context:
        return lambda config, context: function(read_config(model, config), context)
    return lambda config, _context: function(read_config(model, config))
