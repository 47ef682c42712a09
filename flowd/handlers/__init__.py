"""Handlers: how they are written, found and called, and the ones that come with flowd.

    from flowd.handlers import Context, Fail, Retry, Wait, handler

    @handler("greet")
    async def greet(config: dict, context: Context) -> dict:
        return {"greeting": f"Hello {config['name']}"}

This module is light: importing it loads neither pydantic nor a client. Beside it: `registry` knows
every handler by name, `loading` imports your own, `context` is what a call may use, `config` reads
what a node is told, `process_pool` runs calls in processes of their own.

May use: outgoing, store.budgets, workflow. Called by the workers, and by the API, which checks
configs before it takes a workflow. The manual's page is own-handlers.
"""

from __future__ import annotations

import functools
import inspect
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from flowd.errors import Fail, Retry, Wait
from flowd.log import get_logger, spoken
from flowd.node_log import LineSink

__all__ = ["Context", "Fail", "Retry", "Wait", "handler"]

HandlerKind = Literal["async", "thread", "inline", "process"]
_F = TypeVar("_F", bound=Callable[..., Any])

MARK = "__flowd_handler__"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")

_log = get_logger(__name__)


# Compared by identity: a callable object may have no hash.
@dataclass(frozen=True, slots=True, eq=False)
class Mark:
    """What `@handler` leaves on a function, for whoever looks through its module."""

    name: str
    function: Callable[..., Any]
    kind: HandlerKind


def handler(
    name: str, *, inline: bool = False, isolation: Literal["process"] | None = None
) -> Callable[[_F], _F]:
    """Mark a sync or async function as the handler `name`; the function itself stays as it is.

    A partial, a method or an object that can be called will do as well.

    It is called with the rendered config, a dict or the pydantic model its first parameter is
    annotated with, and with a Context if it takes two arguments. It returns a dict that JSON can
    hold. An async function runs on the worker's event loop and must not block it; a sync function
    runs in a thread, or with `inline` on the loop too, which is for functions that take no time.
    With `isolation="process"` each call has a process of its own, which a time-out can end whatever
    it does, and whose death fails this node and no other.
    """
    if not isinstance(name, str):
        raise TypeError(f'handler takes a name first, and was given {name!r}: @handler("greet")')
    if not _NAME.fullmatch(name):
        raise ValueError(f"bad handler name {name!r}; use letters, digits, '_', '-' and '.'")

    def mark(function: _F) -> _F:
        if not callable(function) or inspect.isclass(function):
            raise TypeError(
                f"handler {name!r}: {function!r} cannot be called; mark a function with @handler"
            )
        is_async = _is_async(function)
        if inline and (isolation or is_async or _is_async(underlying(function))):
            raise TypeError(f"handler {name!r}: inline is for sync functions without isolation")
        kind: HandlerKind = isolation or ("async" if is_async else "inline" if inline else "thread")
        try:
            setattr(function, MARK, Mark(name, function, kind))
        except (AttributeError, TypeError):
            # A method, for one, takes no attributes.
            return mark(functools.partial(function))  # type: ignore[return-value]
        return function

    return mark


def _is_async(function: Callable[..., Any]) -> bool:
    """Whether calling it makes a coroutine, as far as can be seen from outside."""
    while isinstance(function, functools.partial):
        function = function.func
    call = getattr(type(function), "__call__", None)  # noqa: B004 - its kind is wanted
    return inspect.iscoroutinefunction(function) or inspect.iscoroutinefunction(call)


def underlying(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function whose code runs in the end: behind decorators, partials and `__call__`."""
    while isinstance(function, functools.partial) or hasattr(function, "__wrapped__"):
        if isinstance(function, functools.partial):
            function = function.func
        else:
            function = inspect.unwrap(function)
    if hasattr(function, "__code__"):
        return function
    call = getattr(type(function), "__call__", None)  # noqa: B004 - its code is wanted
    return call if call is not None and hasattr(call, "__code__") else function


class ContextLogger:
    """Lines of a handler in the log of its node, and in flowd's, where each names its node. Facts
    are keywords.

    Not for secrets, and not for outputs: a log is read by many.
    """

    __slots__ = ("_context",)

    def __init__(self, context: Context) -> None:
        self._context = context

    def debug(self, message: str, /, **facts: Any) -> None:
        self._say("debug", message, facts)
        _log.debug("handler.logged", **self._named(message, facts))

    def info(self, message: str, /, **facts: Any) -> None:
        self._say("info", message, facts)
        _log.info("handler.logged", **self._named(message, facts))

    def warning(self, message: str, /, **facts: Any) -> None:
        self._say("warning", message, facts)
        _log.warning("handler.logged", **self._named(message, facts))

    def error(self, message: str, /, **facts: Any) -> None:
        """A fact that is an exception is written with its traceback."""
        self._say("error", message, facts)
        _log.error("handler.logged", **self._named(message, facts))

    def _say(self, level: str, message: str, facts: dict[str, Any]) -> None:
        if (log := self._context.node_log()) is not None:
            log.write(level, spoken(message, facts))

    def _named(self, message: str, facts: dict[str, Any]) -> dict[str, Any]:
        # A fact of one of these names says the same, or is wrong.
        context = self._context
        own = {
            "execution_id": context.execution_id,
            "node_id": context.node_id,
            "attempt": context.attempt,
            "message": message,
        }
        return {**own, **facts, **own}


@dataclass(slots=True)
class Context:
    """The node a handler is called for. `attempt` counts from 1, and so does `call`: a node that
    has waited is called again, and the attempts of one call are one piece of work.

    `cancelled` becomes true when nobody waits for the result any more: a sync function that works
    for long looks at it now and then, an async one gets a CancelledError where it waits.
    """

    execution_id: str
    node_id: str
    attempt: int
    call: int = field(default=1, kw_only=True)
    cancelled: bool = field(default=False, init=False)
    heartbeat_at: float | None = field(default=None, init=False)

    @property
    def idempotency_key(self) -> str:
        """The same for every attempt of one call, so that a service can tell a repetition."""
        key = f"{self.execution_id}:{self.node_id}"
        return key if self.call == 1 else f"{key}:{self.call}"

    @property
    def logger(self) -> ContextLogger:
        return ContextLogger(self)

    def node_log(self) -> LineSink | None:
        """Where what is said in this call is kept; None where nobody keeps it."""
        return None

    def heartbeat(self) -> None:
        """Say that the call makes progress. Raises Fail once it is cancelled; from any thread."""
        if self.cancelled:
            raise Fail("the call was cancelled: nobody waits for its result any more")
        self.heartbeat_at = time.monotonic()
