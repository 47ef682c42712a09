"""Whether a node that ended well is called again, and when: polling until its output says so."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cached_property
from typing import Any, Final

from flowd.backoff import pause_after
from flowd.errors import Fail, TemplateError
from flowd.workflow.conditions import Condition, MalformedCondition, Read, Scope

# What the condition of a repeat reads besides what others may: the output of the call.
OUTPUT: Final = "output"
# The handlers of which a call is a wait already.
WAITING_HANDLERS: Final = frozenset({"delay", "signal", "workflow"})
_DELAY_S: Final = 10.0
_BACKOFF: Final = 1.0
_MAX_DELAY_S: Final = 300.0
_MAX_TIMES: Final = 100
_OUTPUT_CHARS_SHOWN: Final = 500


class Repeat:
    """As a node says it in `repeat`; what it leaves out has a default."""

    def __init__(self, written: Mapping[str, Any]) -> None:
        self._until: str = written["until"]
        self._delay_s = written.get("delay_s", _DELAY_S)
        self._backoff = written.get("backoff", _BACKOFF)
        self._longest_s = written.get("max_delay_s", _MAX_DELAY_S)
        self._max_times = written.get("max_times", _MAX_TIMES)

    @cached_property
    def _condition(self) -> Condition:
        """Raises MalformedCondition, which no definition does that went through the API."""
        return Condition(self._until)

    @property
    def reads(self) -> tuple[Read, ...]:
        """What the condition looks up; nothing where it is malformed."""
        try:
            return self._condition.reads
        except MalformedCondition:
            return ()

    def is_done(self, call: int, scope: Scope, output: str) -> bool:
        """Whether this call was the last. Raises Fail where no further call would be made."""
        try:
            if self._condition.decide(scope):
                return True
        except TemplateError as error:
            raise Fail(f"repeat: {error}") from None
        if call < self._max_times:
            return False
        shown = output[:_OUTPUT_CHARS_SHOWN] + ("…" if len(output) > _OUTPUT_CHARS_SHOWN else "")
        times = "1 call" if call == 1 else f"{call:,} calls"
        raise Fail(f"repeat: {self._until} was not true after {times}; the last output: {shown}")

    def pause_s(self, call: int) -> float:
        """Seconds from this call, the first is 1, to the next."""
        return pause_after(
            call, first_s=self._delay_s, longest_s=self._longest_s, factor=self._backoff
        )

    def progress(self, call: int) -> str:
        """For whoever looks between two calls."""
        return f"called {call:,} of {self._max_times:,} times, until {self._until}"
