"""The errors clients raise, and how long they tolerate an outage."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final


class ClientError(Exception):
    """Base of what clients raise."""


class ConnectionFailed(ClientError):
    """flowd does not answer. The request may have been done or not: repeat it."""


class OtherServer(ConnectionFailed):
    """Something else answers at this address: a page of flowd, or another program."""

    def __init__(self, url: str, why: str) -> None:
        super().__init__(f"{url} answers, but not as the API of flowd does: {why}")


class ApiError(ClientError):
    """flowd refused the request. `code` never changes; `errors` lists every problem it found."""

    def __init__(
        self, status: int, code: str, detail: str, errors: Sequence[Mapping[str, str]] = ()
    ) -> None:
        self.status = status
        self.code = code
        self.detail = detail
        self.errors = tuple(errors)
        super().__init__(detail)


# How long a caller that waits tolerates that a flowd does not answer which has answered before.
AWAY_S_MAX: Final = 60.0
_FOR_NOW: Final = frozenset({429, 502, 503, 504})


def is_for_now(status: int) -> bool:
    """Whether the same request may be sent again: flowd restarts, or has too much to do."""
    return status in _FOR_NOW


class OutageTolerance:
    """Tolerates that flowd does not answer for up to AWAY_S_MAX, once it has answered before.

    A caller that has had no answer yet gives up at once: it may have the wrong address.
    """

    def __init__(self) -> None:
        self._answered_s: float | None = None

    def note_answer(self) -> None:
        """Note that flowd has answered just now."""
        self._answered_s = time.monotonic()

    def check(self, error: ClientError) -> None:
        """Raise the error, unless it is temporary and flowd answered less than AWAY_S_MAX ago."""
        passes = not isinstance(error, ApiError) or is_for_now(error.status)
        if self._answered_s is None or not passes:
            raise error
        if time.monotonic() - self._answered_s > AWAY_S_MAX:
            raise error


class WorkflowFailed(ClientError):
    """The execution ended as FAILED or CANCELLED. `errors` has the error of each node, by id."""

    def __init__(self, execution_id: str, status: str, errors: Mapping[str, Any]) -> None:
        self.execution_id = execution_id
        self.status = status
        self.errors = dict(errors)
        first = next((f": {node_id}: {text}" for node_id, text in self.errors.items()), "")
        super().__init__(f"execution {execution_id} is {status}{first}")


class StillRunning(ClientError, TimeoutError):
    """The time to wait is over, but the execution has not ended: it runs on."""

    def __init__(self, execution_id: str, status: str, timeout_s: float | None) -> None:
        self.execution_id = execution_id
        self.status = status
        super().__init__(f"execution {execution_id} is {status} after {timeout_s or 0:g} s")
