"""Await a handler so that, should the loop never come back, the supervisor knows where it is."""

from __future__ import annotations

from collections.abc import Coroutine, Generator
from types import coroutine
from typing import Any

from flowd.handlers.outcome import as_failure
from flowd.pulse import Pulse


@coroutine
def watched(
    handler_call: Coroutine[Any, Any, Any], pulse: Pulse, name: str
) -> Generator[Any, Any, Any]:
    """The same as awaiting it; every step of it is marked in the shared page."""
    step, argument = handler_call.send, None
    while True:
        pulse.enter(name)
        try:
            waited_for = step(argument)
        except StopIteration as end:
            return end.value
        except GeneratorExit as error:
            if error is argument:
                raise
            # Of the handler's own making: out of here it would look as if the loop closed the call.
            raise as_failure(error) from None
        finally:
            pulse.leave()
        try:
            argument = yield waited_for
            step = handler_call.send
        except BaseException as error:  # noqa: BLE001 - it is the handler's to deal with
            step, argument = handler_call.throw, error
