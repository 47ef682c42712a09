"""Whether a failed node runs again, and when."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from flowd.backoff import pause_after
from flowd.errors import Fail, HandlerFailed, Retry, TemplateError

# Statuses of a service that may be another one later; the others of 4xx are ours to mend.
TRANSIENT_STATUSES: Final = frozenset({"408", "425", "429", "5xx"})
UNFORESEEN: Final = frozenset({"error"})


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """The n-th pause is `delay_s * backoff ** (n - 1)`, `max_delay_s` at most, and `jitter` of it
    is left to chance.

    `on` are the kinds of failure that are worth another attempt; empty leaves it to them: whatever
    may pass by itself.
    """

    max_attempts: int
    delay_s: float
    backoff: float
    max_delay_s: float
    jitter: float
    on: frozenset[str] = frozenset()

    def overridden_by(self, retry: Mapping[str, Any] | None) -> RetryPolicy:
        """With what a node says of its own."""
        if not retry:
            return self
        own = {name: retry.get(name, getattr(self, name)) for name in self.__slots__}
        return RetryPolicy(**{**own, "on": frozenset(own["on"])})

    def wants_another(self, error: BaseException, failures: int) -> bool:
        """`failures` counts this one too."""
        if failures >= self.max_attempts or isinstance(error, Fail | TemplateError):
            return False
        kinds = kinds_of(error)
        if isinstance(error, Retry) and (not self.on or kinds == UNFORESEEN):
            return True
        if self.on:
            return bool(self.on & kinds)
        return "status" not in kinds or bool(TRANSIENT_STATUSES & kinds)

    def why_no_other(self, error: BaseException) -> str:
        """Of one that `wants_another` has not let run again although there are attempts left."""
        if self.on and not isinstance(error, Fail | TemplateError):
            return "not tried again: `on` does not name this failure"
        return "not tried again: another attempt would not change it"

    def pause_s(self, error: BaseException, failures: int, jitter_sample: float) -> float:
        """Seconds until the next attempt; `jitter_sample` is between 0 and 1.

        A handler that was told how long to wait is heard: it never runs sooner than that.
        """
        pause_s = pause_after(
            failures, first_s=self.delay_s, longest_s=self.max_delay_s, factor=self.backoff
        )
        pause_s *= 1 + self.jitter * (2 * jitter_sample - 1)
        after_s = error.after_s if isinstance(error, Retry) else None
        return max(pause_s, after_s or 0.0)


def kinds_of(error: BaseException) -> frozenset[str]:
    """What `on` may name this failure by."""
    if isinstance(error, HandlerFailed):
        return error.kinds
    if isinstance(error, ConnectionError):
        return frozenset({"connection"})
    return frozenset({"timeout"}) if isinstance(error, TimeoutError) else UNFORESEEN
