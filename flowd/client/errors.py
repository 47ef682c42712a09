"""What a client may meet."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final


class ClientError(Exception):
    """Base of what clients raise."""


class ConnectionFailed(ClientError):
    """No flowd answers there. What was asked may have been done or not: ask again."""


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


# How long one who waits bears it that a flowd does not answer which has answered before.
AWAY_S_MAX: Final = 60.0
_FOR_NOW: Final = frozenset({429, 502, 503, 504})


def is_for_now(status: int) -> bool:
    """Whether the same may be asked again: flowd restarts, or has too much to do."""
    return status in _FOR_NOW


class Absence:
    """Bears that flowd does not answer for a while. One who has heard nothing yet gives up at once:
    it may have the wrong address."""

    def __init__(self) -> None:
        self._answered_s: float | None = None

    def end(self) -> None:
        """It has answered."""
        self._answered_s = time.monotonic()

    def bear(self, error: ClientError) -> None:
        """Raises the error where it is none to wait over, or it has been long enough."""
        passes = not isinstance(error, ApiError) or is_for_now(error.status)
        if self._answered_s is None or not passes:
            raise error
        if time.monotonic() - self._answered_s > AWAY_S_MAX:
            raise error


class WorkflowFailed(ClientError):
    """The execution ended, and not well. `errors` has what its nodes failed with, by node id."""

    def __init__(self, execution_id: str, status: str, errors: Mapping[str, Any]) -> None:
        self.execution_id = execution_id
        self.status = status
        self.errors = dict(errors)
        first = next((f": {node_id}: {text}" for node_id, text in self.errors.items()), "")
        super().__init__(f"execution {execution_id} is {status}{first}")


class StillRunning(ClientError, TimeoutError):
    """The time to wait is over, and the execution is not: it runs on."""

    def __init__(self, execution_id: str, status: str, timeout_s: float | None) -> None:
        self.execution_id = execution_id
        self.status = status
        super().__init__(f"execution {execution_id} is {status} after {timeout_s or 0:g} s")
